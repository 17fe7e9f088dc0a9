import { expect } from 'chai'
import { systemClock as clock } from '../../shared/runtime/clock.ts'
import { SharedSpace } from '../../shared/storage/list-space.ts'
import type { ListedEntry } from '../../shared/storage/types.ts'
import { describe as describeChild } from '../../worker/found-file.ts'
import { childrenOf } from '../../worker/listed-directory.ts'
import { ImportStage } from './import-stage.ts'
import { Stage } from './stage.ts'

const entry = (path: string): ListedEntry => ({ path, directory: false, size: 1 })
const listed = (...entries: readonly ListedEntry[]) => ({ place: {} as never, entries, close: () => undefined })

describe('the names of a directory', () => {
  it('come each once, after the last that was taken', () => {
    const children = childrenOf('sub', listed(entry('/d/sub/a'), entry('/d/sub/b'), entry('/d/sub/c')), 'a')
    expect(children.map(({ name, path }) => [name, path])).to.deep.equal([
      ['b', 'sub/b'],
      ['c', 'sub/c'],
    ])
  })

  it('that are not UTF-8 are told, as many as look alike', async () => {
    const [child, ...others] = childrenOf('', listed(entry('/d/\ufffdx'), entry('/d/\ufffdx')))
    expect(others).to.deep.equal([])
    const job = { dataset: 'd', checksum: 'storage', storage: {} as never } as const
    const found = child && (await describeChild(job, child, {} as never))
    expect(found).to.deep.include({
      leftOut: {
        path: '\ufffdx',
        code: 'NAME_INVALID',
        message: 'its name is not UTF-8: nobody can ask for it; 2 names look like this',
      },
    })
  })
})

describe('an import that has more names than memory', () => {
  let stage: Stage
  beforeEach(async () => {
    stage = await Stage.create()
  })
  afterEach(() => stage.end())

  it('leaves out the directory that never fits, and waits with one that fits when others are done', async () => {
    for (let i = 0; i < 20; i += 1) await stage.write('SITE-A', `tree/long/f${i}`, '')
    for (const name of ['a', 'b', 'c']) await stage.write('SITE-A', `tree/short/${name}`, name)
    const space = new SharedSpace(6_000)
    const others = space.open()
    expect(others.take(4_500)).to.equal(true)
    const imports = new ImportStage(stage)
    const { storages } = imports.watched((verb, name) => {
      if (verb === 'PROPFIND' && name === 'tree/short') void clock.sleep(200).then(() => others.close())
    })
    stage.start({ storages: Object.create(storages ?? {}, { lists: { value: space } }) })
    const reports = await imports.reportsOf(await imports.job('tree'))
    expect(reports.flatMap(({ files }) => files.map(({ path }) => path))).to.deep.equal([
      'short/a',
      'short/b',
      'short/c',
    ])
    expect(reports.flatMap(({ leftOut }) => leftOut.map(({ path, message }) => [path, message]))).to.deep.equal([
      ['long', 'the directory has more entries than there is memory for'],
    ])
    expect(space.taken).to.equal(0)
  })
})
