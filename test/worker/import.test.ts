import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import type { ImportJob } from '../../shared/contract/routes/worker.ts'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { transferFailure } from '../../shared/storage/classify.ts'
import { StorageError } from '../../shared/storage/types.ts'
import { ImportStage } from './import-stage.ts'
import { Stage } from './stage.ts'
import type { ReportedFiles } from './stand-in-server.ts'

/** Of one file. */
const broken = transferFailure('STORAGE_ERROR', 'SOURCE', 'PREPARATION', 'HEAD answered 500', { httpStatus: 500 })

describe('an import', () => {
  let stage: Stage
  beforeEach(async () => {
    stage = await Stage.create()
  })
  afterEach(() => stage.end())

  const job = (...given: Parameters<ImportStage['job']>) => new ImportStage(stage).job(...given)
  const reportsOf = (wanted: ImportJob) => new ImportStage(stage).reportsOf(wanted)
  const watched = (...given: Parameters<ImportStage['watched']>) => new ImportStage(stage).watched(...given)
  const filesOf = (reports: readonly ReportedFiles[]) => reports.flatMap(({ files }) => files)
  const sumOf = (content: string): string => adler32Hex(adler32(Buffer.from(content)))

  it('hands in every file below the directory, with size and checksum', async () => {
    const files = new Map([
      ['a.root', 'one'],
      ['sub/b.root', 'two'],
      ['sub/deep/er/c.root', 'three'],
      ['über/with space & more.root', 'four'],
    ])
    for (const [name, content] of files) await stage.write('SITE-A', `tree/${name}`, content)
    stage.start()
    const reports = await reportsOf(await job('tree'))
    const expected = [...files]
      .slice(0, 3)
      .map(([path, content]) => ({ path, bytes: content.length, adler32: sumOf(content) }))
    expect(filesOf(reports).sort((a, b) => (a.path < b.path ? -1 : 1))).to.deep.equal(expected)
    expect(reports.flatMap(({ leftOut }) => leftOut.map(({ path, code }) => [path, code]))).to.deep.equal([
      ['über/with space & more.root', 'NAME_INVALID'],
    ])
    expect(reports.every(({ fence, session }) => fence === 3 && session === 1)).to.equal(true)
  })

  it('comes in parts, in the order of names, and tells how far it is', async () => {
    for (let i = 0; i < 1001; i++) await stage.write('SITE-A', `many/f${i}`, `${i}`)
    stage.start()
    const reports = await reportsOf(await job('many'))
    const names = filesOf(reports).map(({ path }) => path)
    expect(names).to.deep.equal(Array.from({ length: 1001 }, (_, i) => `f${i}`).sort())
    expect(reports.map(({ part, files, begun, listed }) => [part, files.length, begun, listed])).to.deep.equal([
      [1, 500, { directory: 1, doneUntil: names[499] }, []],
      [2, 500, { directory: 1, doneUntil: names[999] }, []],
      [3, 1, undefined, [1]],
    ])
  })

  it('goes on where it was: nothing that was handed in is looked at again', async () => {
    for (const name of ['a', 'b', 'c', 'd', 'aside/e']) await stage.write('SITE-A', `tree/${name}`, name)
    const heads = new Set<string>()
    stage.start(watched((verb, name) => verb === 'HEAD' && heads.add(name)))
    const directories = [{ directory: 1, path: '', doneUntil: 'b' }]
    const reports = await reportsOf(await job('tree', { directories }))
    expect(filesOf(reports).map(({ path }) => path)).to.deep.equal(['c', 'd'])
    heads.delete('tree')
    expect([...heads]).to.deep.equal(['tree/c', 'tree/d'])
  })

  it('lists each directory once, and the deepest first', async () => {
    for (const name of ['a/x/f', 'a/y/f', 'b/f']) await stage.write('SITE-A', `tree/${name}`, name)
    const lists: string[] = []
    stage.start(watched((verb, name) => verb === 'PROPFIND' && lists.push(name)))
    const reports = await reportsOf(await job('tree'))
    expect(lists).to.deep.equal(['tree', 'tree/b', 'tree/a', 'tree/a/y', 'tree/a/x'])
    expect(reports.map(({ directories, listed }) => [directories, listed])).to.deep.equal([
      [['a', 'b'], [1]],
      [
        ['a/x', 'a/y'],
        [10_001, 10_000],
      ],
      [[], [20_001, 20_000]],
    ])
  })

  it('of an empty directory is done with nothing', async () => {
    await stage.write('SITE-A', 'hollow/sub/.keep', '')
    stage.start()
    expect(filesOf(await reportsOf(await job('hollow'))).map(({ path }) => path)).to.deep.equal(['sub/.keep'])
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
    expect(reports.map(({ part }) => part)).to.deep.equal([1, 1, 2, 2])
    expect(reports[1]).to.deep.equal(reports[0])
    expect(reports[3]).to.deep.equal(reports[2])
  })

  for (const code of ['IMPORT_LOST', 'IMPORT_PART_MISSING']) {
    it(`that another session has is left to it, without a word (${code})`, async () => {
      await stage.write('SITE-A', 'one/f', 'x')
      stage.server.before = name => {
        if (name === 'reportImport') throw new ApiError(code, 'it is not yours', { status: 409 })
      }
      stage.start()
      stage.server.enqueueImport(await job('one'))
      await stage.server.untilCalled('reportImport')
      const next = await stage.transfer('f1', 'content')
      stage.server.enqueue(next)
      await stage.server.outcomeOf(next.transfer)
      expect(stage.server.called('reportImport')).to.equal(1)
    })
  }

  it('whose report is refused says so in the place of the part that was refused', async () => {
    await stage.write('SITE-A', 'one/f', 'x')
    let refused = false
    stage.server.before = name => {
      if (name !== 'reportImport' || refused) return
      refused = true
      throw new ApiError('INVALID', 'files.0.path: too long', { status: 400 })
    }
    stage.start()
    const [report] = await reportsOf(await job('one'))
    expect(report).to.deep.include({ part: 1, files: [], listed: [] })
    expect(report?.error).to.include({ code: 'INVALID', retryable: false })
    expect(report?.error?.message).to.contain('files.0.path: too long')
  })

  it('takes no checksum that the storage does not tell again', async () => {
    await stage.write('SITE-A', 'one/f', 'x')
    stage.a.behaviour.strayChecksums = 1
    stage.start()
    expect(filesOf(await reportsOf(await job('one'))).map(file => file.adler32)).to.deep.equal([sumOf('x')])
  })

  it('asks nothing of single files where checksums are not wanted', async () => {
    for (const name of ['a', 'b']) await stage.write('SITE-A', `one/${name}`, 'xyz')
    const heads: string[] = []
    stage.start(watched((verb, name) => verb === 'HEAD' && heads.push(name)))
    const reports = await reportsOf(await job('one', { checksum: 'none' }))
    expect(filesOf(reports)).to.deep.equal([
      { path: 'a', bytes: 3 },
      { path: 'b', bytes: 3 },
    ])
    // But for the first use of the token.
    expect(heads).to.deep.equal(['one'])
  })

  it('that fails says why, and that it is for good', async () => {
    stage.start()
    const [report] = await reportsOf(await job('missing'))
    expect(report).to.deep.include({ files: [], listed: [] })
    expect(report?.error).to.include({ code: 'SOURCE_MISSING', retryable: false })
    expect(report?.error?.message).to.match(/^PROPFIND answered 404/)
  })

  it('keeps what it had when the storage goes away, and says where it was', async () => {
    for (let i = 0; i < 40; i++) await stage.write('SITE-A', `tree/f${10 + i}`, `${i}`)
    let looks = 0
    const order = { verb: 'HEAD', status: 503, times: 1_000 } as const
    stage.start(
      watched(verb => {
        if (verb === 'HEAD' && ++looks === 30) stage.a.refuse(order)
      }),
    )
    const [report] = await reportsOf(await job('tree'))
    expect(report?.error).to.include({ code: 'STORAGE_BUSY', retryable: true })
    const { files = [], begun } = report ?? {}
    expect(files.length).to.be.within(1, 39)
    expect(begun).to.deep.equal({ directory: 1, doneUntil: files.at(-1)?.path })
    expect(report?.error?.message).to.contain(`f${10 + files.length}: `)
  })

  it('leaves out the file that the storage refuses while it answers for others, and the others come', async () => {
    for (const name of ['a', 'b', 'c']) await stage.write('SITE-A', `tree/${name}`, name)
    stage.start({
      ...watched((verb, name) => {
        if (verb === 'HEAD' && name === 'tree/b') throw new StorageError(broken)
      }),
    })
    const reports = await reportsOf(await job('tree'))
    expect(filesOf(reports).map(({ path }) => path)).to.deep.equal(['a', 'c'])
    expect(reports.flatMap(({ leftOut }) => leftOut)).to.deep.equal([
      { path: 'b', code: 'STORAGE_ERROR', message: 'HEAD answered 500' },
    ])
  })

  it('of a storage without checksums is refused, and says what to do', async () => {
    await stage.write('SITE-A', 'tree/a', 'a')
    stage.a.behaviour.checksums = []
    stage.start()
    const [report] = await reportsOf(await job('tree'))
    expect(report?.files).to.deep.equal([])
    expect(report?.error).to.include({ code: 'REQUEST_REFUSED', retryable: false })
    expect(report?.error?.message).to.match(/^a: SITE-A tells no checksum \(adler32\) .*--checksum none/)
  })

  it('that is drained goes on elsewhere: it is not held any more', async () => {
    for (let i = 0; i < 20; i++) await stage.write('SITE-A', `tree/d${i}/f`, 'x')
    const held: (number[] | undefined)[] = []
    const { claim, reportImport } = stage.server.api
    const [asked, stopped] = [new AbortController(), new AbortController()]
    stage.start({
      api: {
        ...stage.server.api,
        claim: call => {
          held.push(call.body.held?.imports.map(Number))
          return claim(call)
        },
        reportImport: async call => {
          call.signal?.addEventListener('abort', () => stopped.abort())
          asked.abort()
          await systemClock.sleep(30_000, call.signal)
          return reportImport(call)
        },
      },
    })
    stage.server.enqueueImport(await job('tree'))
    await systemClock.sleep(30_000, asked.signal)
    stage.server.drained = true
    stage.server.enqueue(await stage.transfer('f', 'content'))
    await systemClock.sleep(30_000, stopped.signal)
    expect(stopped.signal.aborted).to.equal(true)
    stage.server.enqueue(await stage.transfer('g', 'content'))
    while (held.at(-1) === undefined) await stage.server.untilCalled('claim')
    expect(held.at(-1)).to.deep.equal([])
  })

  it('leaves out what is gone since it was listed', async () => {
    for (const name of ['a', 'b', 'c/d']) await stage.write('SITE-A', `tree/${name}`, name)
    const root = join(stage.storage('SITE-A').directory, '/data/exp/ds/tree')
    const remove = async (verb: string, name: string): Promise<void> => {
      // Not before it is listed, as with the first use of the token.
      if (verb !== 'HEAD' || name === 'tree') return
      await rm(join(root, 'b'), { force: true })
      await rm(join(root, 'c'), { force: true, recursive: true })
    }
    stage.start(watched(remove))
    const reports = await reportsOf(await job('tree'))
    expect(filesOf(reports).map(({ path }) => path)).to.deep.equal(['a'])
    expect(reports.flatMap(({ leftOut }) => leftOut.map(({ path, code }) => [path, code]))).to.deep.equal([
      ['b', 'SOURCE_MISSING'],
      ['c', 'SOURCE_MISSING'],
    ])
  })
})
