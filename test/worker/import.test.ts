import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import type { ImportJob } from '../../shared/contract/routes/worker.ts'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import { Stage } from './stage.ts'

describe('an import', () => {
  let stage: Stage
  beforeEach(async () => {
    stage = await Stage.create()
  })
  afterEach(() => stage.end())

  async function job(below: string): Promise<ImportJob> {
    const { source } = await stage.transfer('other/file', 'x')
    const storage = stage.server.storages.get('SITE-A')
    if (storage === undefined) throw new Error('no storage')
    const url = `${stage.storage('SITE-A').url}/data/exp/ds/${below}`
    return { import: 5, fence: 3, url, grant: source.grant, storage }
  }
  const untilDone = async () => {
    while (!stage.server.imports.at(-1)?.done) await stage.server.untilImport()
    return stage.server.imports
  }

  it('hands in every file below the directory, with size and checksum', async () => {
    const files = new Map([
      ['a.root', 'one'],
      ['sub/b.root', 'two'],
      ['sub/deep/er/c.root', 'three'],
      ['sub/with space & more.root', 'four'],
    ])
    for (const [name, content] of files) await stage.write('SITE-A', `tree/${name}`, content)
    stage.start()
    stage.server.enqueueImport(await job('tree'))
    const found = (await untilDone()).flatMap(report => report.files)
    const expected = [...files].map(([path, content]) => ({
      path,
      bytes: content.length,
      adler32: adler32Hex(adler32(Buffer.from(content))),
    }))
    expect(found.sort((a, b) => (a.path < b.path ? -1 : 1))).to.deep.equal(expected)
    expect(stage.server.imports.every(({ fence, session }) => fence === 3 && session === 1)).to.equal(true)
  })

  it('comes in batches', async () => {
    for (let i = 0; i < 501; i++) await stage.write('SITE-A', `many/f${i}`, `${i}`)
    stage.start()
    stage.server.enqueueImport(await job('many'))
    expect((await untilDone()).map(({ part, files, done }) => [part, files.length, done])).to.deep.equal([
      [1, 500, false],
      [2, 1, true],
    ])
  })

  it('of an empty directory is done with nothing', async () => {
    await stage.write('SITE-A', 'hollow/sub/.keep', '')
    stage.start()
    stage.server.enqueueImport(await job('hollow'))
    expect((await untilDone()).flatMap(({ files }) => files.map(({ path }) => path))).to.deep.equal(['sub/.keep'])
  })

  it('hands in the same part again when the answer was lost, and goes on from there', async () => {
    for (let i = 0; i < 501; i++) await stage.write('SITE-A', `many/f${i}`, `${i}`)
    const lost = new HttpFailure('reset', 'POST', new URL('https://server.example/'))
    stage.server.after = name => {
      if (name === 'reportImport' && [1, 3].includes(stage.server.called('reportImport'))) throw lost
    }
    stage.start()
    stage.server.enqueueImport(await job('many'))
    while (stage.server.called('reportImport') < 4) await stage.server.untilImport()
    const reports = stage.server.imports
    expect(reports.map(({ part, done }) => [part, done])).to.deep.equal([
      [1, false],
      [1, false],
      [2, true],
      [2, true],
    ])
    expect(reports[1]).to.deep.equal(reports[0])
    expect(reports[3]).to.deep.equal(reports[2])
  })

  it('that another session has is left to it, without a word', async () => {
    await stage.write('SITE-A', 'one/f', 'x')
    stage.server.before = name => {
      if (name === 'reportImport') throw new ApiError('IMPORT_LOST', 'it is not yours', { status: 409 })
    }
    stage.start()
    stage.server.enqueueImport(await job('one'))
    await stage.server.untilCalled('reportImport')
    const next = await stage.transfer('f1', 'content')
    stage.server.enqueue(next)
    await stage.server.outcomeOf(next.transfer)
    expect(stage.server.called('reportImport')).to.equal(1)
  })

  it('whose report is refused says so in the place of the part that was refused', async () => {
    await stage.write('SITE-A', 'one/f', 'x')
    let refused = false
    stage.server.before = name => {
      if (name !== 'reportImport' || refused) return
      refused = true
      throw new ApiError('INVALID', 'files.0.path: too long', { status: 400 })
    }
    stage.start()
    stage.server.enqueueImport(await job('one'))
    const [report] = await untilDone()
    expect(report).to.deep.include({ part: 1, files: [], done: true })
    expect(report?.error).to.contain('files.0.path: too long')
  })

  it('takes no checksum that the storage does not tell again', async () => {
    await stage.write('SITE-A', 'one/f', 'x')
    stage.a.behaviour.strayChecksums = 1
    stage.start()
    stage.server.enqueueImport(await job('one'))
    const [report] = await untilDone()
    expect(report?.files.map(file => file.adler32)).to.deep.equal([adler32Hex(adler32(Buffer.from('x')))])
  })

  it('that fails says why', async () => {
    stage.start()
    stage.server.enqueueImport(await job('missing'))
    const [report] = await untilDone()
    expect(report).to.deep.include({ files: [], done: true })
    expect(report?.error).to.match(/^(NOT_FOUND|SOURCE_MISSING): PROPFIND answered 404/)
  })
})
