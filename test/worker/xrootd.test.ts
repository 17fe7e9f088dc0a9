import { expect } from 'chai'
import { requireComponents } from '../interop/components.ts'
import { Stage } from './stage.ts'
import { XrootdPair } from './xrootd-pair.ts'

/** What XRootD 5.5.3 does differently from the embedded storages: facts/http-tpc.md sections 4 and 5. */
describe('an attempt between real XRootD servers', () => {
  let stage: Stage
  let pair: XrootdPair

  before(async function () {
    requireComponents(this, ['xrootd'])
    stage = await Stage.create()
    pair = await XrootdPair.start(stage)
    stage.start()
  })
  after(async () => {
    await stage?.end()
    await pair?.stop()
  })

  for (const mode of ['pull', 'push', 'stream'] as const) {
    it(`${mode === 'push' ? 'pushes' : `${mode}s`} a file into directories that are not there yet`, async () => {
      const content = Buffer.alloc(300_000, mode)
      const outcome = await pair.run(await pair.transfer(mode, `s/${mode}/deep/er/f`, content))
      expect(outcome.error).to.equal(undefined)
      expect(outcome).to.include({ result: 'done', mode })
      expect(await pair.lies(pair.b, `s/${mode}/deep/er/f`)).to.deep.equal(content)
    })

    it(`never overwrites what a ${mode} finds there`, async () => {
      await pair.place(pair.b, `s/there-${mode}/f`, 'another file')
      const outcome = await pair.run(await pair.transfer(mode, `s/there-${mode}/f`, Buffer.from('content')))
      expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS' })
      expect(outcome, 'removed under a permit, and not copied in this attempt').to.include({
        result: 'failed',
        cleaned: true,
      })
    })
  }

  it('removes the empty file that a pull of a missing source leaves', async () => {
    const work = await pair.transfer('pull', 's/debris/f', Buffer.from('content'))
    const outcome = await pair.run({ ...work, source: { ...work.source, url: `${work.source.url}.missing` } })
    expect(outcome.error).to.include({ code: 'SOURCE_MISSING', scope: 'SOURCE' })
    expect(outcome.result).to.equal('failed')
    expect(await pair.lies(pair.b, 's/debris/f')).to.equal(undefined)
  })

  it('takes a file that is there and right', async () => {
    await pair.place(pair.b, 's/same/f', 'content')
    expect(await pair.run(await pair.transfer('pull', 's/same/f', Buffer.from('content')))).to.include({
      result: 'done',
      bytes: 0,
    })
  })

  it('brings many small files over kept connections', async () => {
    const works = await Promise.all(
      Array.from({ length: 100 }, (_, i) => pair.transfer('pull', `s/many/f${i}`, Buffer.from(`content of file ${i}`))),
    )
    const [first] = works
    if (first === undefined) throw new Error('nothing to do')
    const { source, destination } = first
    const together = works.map(work => ({
      ...work,
      source: { ...work.source, grant: source.grant },
      destination: { ...work.destination, grant: destination.grant },
    }))
    stage.server.enqueue(...together)
    const ends = await Promise.all(together.map(work => stage.server.outcomeOf(work.transfer)))
    expect(ends.filter(end => end.result !== 'done').map(end => end.error ?? end)).to.deep.equal([])
  })
})
