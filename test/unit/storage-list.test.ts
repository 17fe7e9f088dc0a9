import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { sortOut } from '../../shared/storage/directories.ts'
import { SharedSpace } from '../../shared/storage/list-space.ts'
import { type ListedEntry, StorageError } from '../../shared/storage/types.ts'
import { Stage } from './storage-stage.ts'

const TOKEN = new Secret('the-token-0123')

const entry = (href: string, size?: string, more = '') =>
  `<D:response><D:href>${href}</D:href>${more}<D:propstat><D:prop>${
    size === undefined
      ? '<D:resourcetype><D:collection/></D:resourcetype>'
      : `<D:getcontentlength>${size}</D:getcontentlength>`
  }</D:prop></D:propstat></D:response>`
const refused = (href: string, status: string) =>
  `<D:response><D:href>${href}</D:href><D:status>HTTP/1.1 ${status}</D:status></D:response>`
const document = (...entries: string[]) => `<D:multistatus xmlns:D="DAV:">${entries.join('')}</D:multistatus>\n`

describe('the list of a directory', () => {
  let stage: Stage
  beforeEach(() => {
    stage = new Stage()
  })
  afterEach(() => stage.close())

  async function failure(run: Promise<unknown>): Promise<string> {
    const error = await run.catch((error: unknown) => error)
    expect(error).to.be.instanceOf(StorageError)
    return error instanceof StorageError ? `${error.failure.code} ${error.failure.scope}` : ''
  }

  const lists = async (path: string, body: string | Buffer, headers = {}, status = 207): Promise<ListedEntry[]> => {
    const url = await stage.storage((_request, response) => response.writeHead(status, headers).end(body))
    return stage.client.list(`${url}${path}`, TOKEN)
  }
  const names = async (...given: Parameters<typeof lists>) => (await lists(...given)).map(({ path }) => path)

  it('gives what is in it, not itself', async () => {
    const xml = document(entry('/exp/a%20b/'), entry('/exp/a%20b/f', '3'), entry('/exp/a%20b/c/'))
    expect(await lists('/exp/a%20b', xml)).to.deep.equal([
      { path: '/exp/a b/f', directory: false, size: 3 },
      { path: '/exp/a b/c', directory: true, size: undefined },
    ])
    expect(stage.asked[0]).to.include({ method: 'PROPFIND', path: '/exp/a%20b/' })
    expect(stage.asked[0]?.headers).to.include({ Depth: '1' })
  })

  it('of a file is refused: nothing lies in it', async () => {
    expect(await failure(lists('/exp/f', document(entry('/exp/f', '3'))))).to.equal('REQUEST_REFUSED GENERAL')
  })

  it('has the paths of XRootD 5 as they are', async () => {
    const server = { Server: 'XrootD/v5.5.3' }
    expect(await names('/exp', document(entry('/exp'), entry('/exp/100%25', '3')), server)).to.deep.equal([
      '/exp/100%25',
    ])
  })

  it('is read as the path of the directory itself is written, whatever a single name looks like', async () => {
    const encoded = document(entry('/x/y%3D1/'), entry('/x/y%3D1/a%25', '1'), entry('/x/y%3D1/caf%E9', '1'))
    for (const server of [{}, { Server: 'XrootD/v5.5.3' }]) {
      expect(await names('/x/y%3D1', encoded, server)).to.deep.equal(['/x/y=1/a%', '/x/y=1/caf\ufffd'])
    }
    const raw = document(entry('/x/y%3D1/'), entry('/x/y%3D1/a%25', '1'))
    expect(await names('/x/y%253D1', raw)).to.deep.equal(['/x/y%3D1/a%25'])
  })

  it('keeps each of the names whose bytes are no UTF-8', async () => {
    const xml = document(entry('/exp/'), entry('/exp/\xe8x', '1'), entry('/exp/\xe9x', '2'))
    expect(await lists('/exp', Buffer.from(xml, 'latin1'))).to.deep.equal([
      { path: '/exp/\ufffdx', directory: false, size: 1 },
      { path: '/exp/\ufffdx', directory: false, size: 2 },
    ])
  })

  for (const [name, ...hrefs] of [
    ['the paths of a proxy that writes others', '/dav/exp/', '/dav/exp/a'],
    ['another directory at another host', 'https://elsewhere.example/x/', 'https://elsewhere.example/x/a'],
    ['what lies deeper', '/exp/', '/exp/a/b'],
    ['what lies outside', '/exp/', '/etc/passwd'],
    ['its parent', '/exp/', '/exp/..'],
    ['a relative path', '/exp/', 'a'],
    ['not itself', '/exp/a'],
    ['nothing'],
  ] as const) {
    it(`with ${name} is refused, and not taken for an empty one`, async () => {
      const xml = document(...hrefs.map(href => entry(href)))
      expect(await failure(lists('/exp', xml))).to.equal('PROTOCOL_VIOLATION GENERAL')
    })
  }

  it('that the storage refuses within its answer is refused', async () => {
    expect(await failure(lists('/exp', document(refused('/exp/', '403 Forbidden'))))).to.equal(
      'PERMISSION_DENIED GENERAL',
    )
  })

  it('tells which of its entries the storage refuses', async () => {
    const [found] = await lists('/exp', document(entry('/exp/'), refused('/exp/a', '403 Forbidden')))
    expect(found).to.include({ path: '/exp/a', directory: false, size: undefined })
    expect(found?.refused).to.include({ code: 'PERMISSION_DENIED', httpStatus: 403 })
  })

  for (const [name, status, text] of [
    ['a page', 207, '<html>Welcome</html>'],
    ['half a document', 207, document(entry('/exp')).slice(0, -10)],
    ['another status', 200, document()],
  ] as const) {
    it(`is not ${name}`, async () => {
      expect(await failure(lists('/exp', text, {}, status))).to.equal('PROTOCOL_VIOLATION GENERAL')
    })
  }

  it('of a directory that is not there is told', async () => {
    expect(await failure(lists('/exp', '', {}, 404))).to.equal('NOT_FOUND GENERAL')
  })

  it('that does not fit into the memory for lists is refused, and waits while others have it', async () => {
    const xml = document(entry('/exp/'), ...Array.from({ length: 20 }, (_, i) => entry(`/exp/f${i}`, '1')))
    const url = await stage.storage((_request, response) => response.writeHead(207).end(xml))
    const space = new SharedSpace(10_000)
    const list = (lease = space.open()) => stage.client.list(`${url}/exp`, TOKEN, { space: lease })
    const [first, second] = [space.open(), space.open()]
    expect(await list(first)).to.have.length(20)
    const error = await list(second).catch((error: unknown) => error)
    expect(error).to.be.instanceOf(StorageError)
    expect(error).to.have.property('message').that.contains('more entries than there is memory for')
    expect(second.cutOff).to.deep.equal({ others: true })
    let waited = false
    const room = space.roomFor(second, new AbortController().signal).then(() => {
      waited = true
    })
    await new Promise(setImmediate)
    expect(waited).to.equal(false)
    first.close()
    await room
    expect(space.taken).to.equal(0)
    const alone = new SharedSpace(1_000).open()
    await list(alone).catch(() => undefined)
    expect(alone.cutOff).to.deep.equal({ others: false })
  })
})

describe('what a list may hold', () => {
  const sorted = (path: string) => sortOut('/data/run', [{ path, directory: false, size: 1 }])
  it('names directly in the directory', () => {
    expect(sorted('/data/run/f.root').inIt).to.have.length(1)
  })
  for (const path of [
    '/data/run/',
    '/data/run/..',
    '/data/run/.',
    '/data/run/../x',
    '/data/running',
    '/etc/passwd',
    '',
  ]) {
    it(`not ${JSON.stringify(path)}`, () => expect(sorted(path).elsewhere).to.deep.equal([path]))
  }
})
