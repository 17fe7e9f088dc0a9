import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { prepareSandbox } from '../../sandbox/main.ts'
import { makeDirectory } from '../../shared/runtime/directory.ts'

describe('a directory that is made', () => {
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'waybill-directory-'))
  })
  afterEach(() => rm(dir, { recursive: true }))

  const failure = (making: Promise<unknown>): Promise<unknown> =>
    making.then(
      () => undefined,
      error => error as unknown,
    )

  it('is there then, with all above it, however often', async () => {
    const path = join(dir, 'a', 'b', 'c')
    await makeDirectory(path)
    await makeDirectory(path)
    expect((await stat(path)).isDirectory()).to.equal(true)
  })

  it('is there then, by however many at the same moment', async () => {
    for (let round = 0; round < 200; round++) {
      const root = join(dir, String(round))
      const paths = [join(root, 'a', 'b', 'c'), join(root, 'a', 'd'), join(root, 'a', 'b', 'c'), join(root, 'a', 'b')]
      await Promise.all(paths.map(makeDirectory))
      for (const path of paths) expect((await stat(path)).isDirectory()).to.equal(true)
    }
  })

  const impossible: [string, string][] = [
    ['/proc/x', 'ENOENT'],
    ['/proc/x/y', 'ENOENT'],
    ['/dev/null', 'a file is in the way'],
    ['/dev/null/x', 'a file is in the way'],
  ]
  for (const [path, why] of impossible) {
    it(`cannot be ${path}, and says so at once`, async () => {
      const expected = { code: 'DIRECTORY_IMPOSSIBLE' }
      const error = await failure(makeDirectory(path))
      expect(error).to.include(expected)
      expect(error).to.have.property('message').that.contains(`the directory ${path} cannot be made (${why})`)
      expect(await failure(prepareSandbox({ dir: path, portBase: 0 })), 'of a sandbox').to.include(expected)
    })
  }
})
