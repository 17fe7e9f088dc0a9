import { mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import {
  type RunningIssuer,
  type RunningStorage,
  type StorageDescription,
  startIssuer,
  startStorage,
} from '../../../sandbox/main.ts'
import { FileTree } from '../../../sandbox/storage/file-tree.ts'
import { systemRandom } from '../../../shared/runtime/random.ts'
import { Fixture, type Reply } from './fixture.ts'

const SECRET = 'not of this storage'

/** Real links in the storage's directory, as somebody with a shell on its machine makes them. */
describe('the embedded storage, with symbolic links in its directory', () => {
  let fixture: Fixture
  let issuer: RunningIssuer
  let a: RunningStorage
  let b: RunningStorage
  let siteA: StorageDescription
  let siteB: StorageDescription
  let outside: string
  let data: string

  before(async () => {
    fixture = await Fixture.create()
    issuer = await startIssuer(fixture.sandbox)
    siteA = fixture.storage('SITE-A')
    siteB = fixture.storage('SITE-B')
    a = await startStorage(fixture.sandbox, 'SITE-A', { quotaBytes: 1_000_000 })
    b = await startStorage(fixture.sandbox, 'SITE-B')
    outside = join(fixture.sandbox.directory, 'outside')
    data = join(siteA.directory, 'data')
  })
  after(async () => {
    await Promise.all([a.stop(), b.stop(), issuer.stop()])
    await fixture.remove()
  })

  beforeEach(async () => {
    for (const directory of [outside, data, join(siteB.directory, 'data')]) {
      await rm(directory, { recursive: true, force: true })
    }
    await mkdir(join(outside, 'sub/empty'), { recursive: true })
    await writeFile(join(outside, 'f'), SECRET)
    await writeFile(join(outside, 'sub/f'), SECRET)
    await mkdir(join(data, 'own'), { recursive: true })
    await mkdir(join(siteB.directory, 'data'), { recursive: true })
    await writeFile(join(data, 'own/f'), 'own')
    await symlink(join(outside, 'f'), join(data, 'own/file-out'))
    await symlink(outside, join(data, 'own/directory-out'))
    await symlink('../../../../outside/f', join(data, 'own/relative-out'))
    await symlink(join(outside, 'nothing'), join(data, 'own/dangling'))
    await symlink('loop', join(data, 'own/loop'))
    // Stays inside, but leads out of what a token for /other grants.
    await mkdir(join(data, 'other'))
    await symlink('../own', join(data, 'other/inside'))
  })

  /** Everything below `outside`, with the files' content. */
  const everythingOutside = async (): Promise<string[]> => {
    const entries = await readdir(outside, { recursive: true, withFileTypes: true })
    return Promise.all(
      entries.map(async entry => {
        const path = join(entry.parentPath, entry.name)
        return entry.isFile() ? `${path}: ${await readFile(path, 'utf8')}` : path
      }),
    ).then(found => found.sort())
  }

  const call = async (
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body?: string,
  ): Promise<Reply> => {
    const token = await fixture.token('storage.read:/ storage.modify:/', siteA.audience)
    return fixture.call(method, `${siteA.url}/data/${path}`, {
      token,
      headers,
      ...(body === undefined ? {} : { body }),
    })
  }
  const to = (path: string): Record<string, string> => ({ Destination: `${siteA.url}/data/${path}` })

  const LINKS = [
    'own/file-out',
    'own/relative-out',
    'own/dangling',
    'own/loop',
    'own/directory-out',
    'own/directory-out/f',
    'own/directory-out/sub/f',
    'own/directory-out/sub/empty',
    'own/directory-out/new/er/f',
    'own/dangling/new/f',
    'other/inside/f',
  ]
  const requests: [string, (link: string) => Promise<Reply>][] = [
    ['HEAD', link => call('HEAD', link)],
    ['GET', link => call('GET', link)],
    ['GET of a range', link => call('GET', link, { Range: 'bytes=0-3' })],
    ['PROPFIND of depth 0', link => call('PROPFIND', link, { Depth: '0' })],
    ['PROPFIND of depth 1', link => call('PROPFIND', link, { Depth: '1' })],
    ['PUT', link => call('PUT', link, {}, 'changed')],
    ['PUT that does not overwrite', link => call('PUT', link, { Overwrite: 'F' }, 'changed')],
    ['DELETE', link => call('DELETE', link)],
    ['MKCOL', link => call('MKCOL', link)],
    ['MOVE from', link => call('MOVE', link, to('own/moved'))],
    ['MOVE to', link => call('MOVE', 'own/f', to(link))],
    ['COPY from', link => call('COPY', link, to('own/copied'))],
    ['COPY to', link => call('COPY', 'own/f', to(link))],
  ]
  for (const link of LINKS) {
    it(`follows ${link} for nothing: 403`, async () => {
      const before = await everythingOutside()
      const own = (await readdir(data, { recursive: true })).sort()
      for (const [what, request] of requests) {
        const { status, text } = await request(link)
        expect(status, what).to.equal(403)
        expect(text, what).not.to.contain(SECRET)
        if (what !== 'HEAD') expect(text, what).to.contain('symbolic link')
      }
      expect(await everythingOutside()).to.deep.equal(before)
      expect((await readdir(data, { recursive: true })).sort()).to.deep.equal(own)
      expect(await readFile(join(data, 'own/f'), 'utf8')).to.equal('own')
    })
  }

  it('takes none as the end of a third-party copy, on either side', async () => {
    const before = await everythingOutside()
    const read = await fixture.token('storage.read:/', siteA.audience)
    const write = await fixture.token('storage.modify:/', siteA.audience)
    for (const link of ['own/file-out', 'own/directory-out/sub/f']) {
      const pushed = await fixture.call('COPY', `${siteA.url}/data/${link}`, {
        token: read,
        headers: {
          Destination: `${siteB.url}/data/x`,
          TransferHeaderAuthorization: `Bearer ${await fixture.token('storage.create:/', siteB.audience)}`,
        },
      })
      expect(pushed.status).to.equal(403)
      const pulled = await fixture.call('COPY', `${siteA.url}/data/${link}`, {
        token: write,
        headers: {
          Source: `${siteB.url}/data/y`,
          TransferHeaderAuthorization: `Bearer ${await fixture.token('storage.read:/', siteB.audience)}`,
        },
      })
      expect(pulled.status).to.equal(403)
    }
    expect(await readdir(join(siteB.directory, 'data'))).to.deep.equal([])
    expect(await everythingOutside()).to.deep.equal(before)
  })

  it('leaves them out of listings', async () => {
    const { status, text } = await call('PROPFIND', 'own', { Depth: '1' })
    expect(status).to.equal(207)
    expect([...text.matchAll(/<D:href>([^<]*)/g)].map(([, href]) => href)).to.deep.equal(['/data/own/', '/data/own/f'])
  })

  it('a link that takes a file`s place while it is opened is noticed', async () => {
    const incoming = join(fixture.sandbox.directory, 'incoming/test')
    const tree = await FileTree.open({
      directory: siteA.directory,
      incoming,
      quotaBytes: undefined,
      random: systemRandom,
    })
    const there = join(data, 'own')
    const away = join(data, 'away')
    // The directory is a link for some openings, and none for others.
    let on = true
    const swap = async (): Promise<void> => {
      for (let turn = 0; on; turn++) {
        for (let pause = 0; pause < turn % 7; pause++) await stat(there)
        await rename(there, away)
        await symlink(outside, there)
        await rm(there)
        await rename(away, there)
      }
    }
    const swapping = swap()
    const read: string[] = []
    for (let i = 0; i < 1_000; i++) {
      const handle = await tree.openFile(['data', 'own', 'f']).catch(() => undefined)
      if (handle === undefined) continue
      read.push(await handle.readFile('utf8'))
      await handle.close()
    }
    on = false
    await swapping
    expect(new Set(read)).to.deep.equal(new Set(['own']))
  })

  it('is itself reached by a link all the same', async () => {
    const linked = join(fixture.sandbox.directory, 'linked')
    await symlink(siteA.directory, linked)
    const incoming = join(fixture.sandbox.directory, 'incoming/test')
    const tree = await FileTree.open({ directory: linked, incoming, quotaBytes: 1_000, random: systemRandom })
    const handle = await tree.openFile(['data', 'own', 'f'])
    expect(await handle.readFile('utf8')).to.equal('own')
    await handle.close()
    await rm(linked)
  })
})
