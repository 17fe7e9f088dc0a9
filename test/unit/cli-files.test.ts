import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { expect } from 'chai'
import { UsageError } from '../../cli/command.ts'
import { downloadFiles } from '../../cli/download.ts'
import { findLocalFiles, sumsOf } from '../../cli/local-files.ts'
import { uploadFiles } from '../../cli/upload.ts'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { sealFor } from '../../shared/oidc/sealed-transport.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { FileStatus } from '../../shared/storage/types.ts'

type UploadOptions = Parameters<typeof uploadFiles>[0]
type DownloadOptions = Parameters<typeof downloadFiles>[0]

const URL_BASE = 'https://site-a.example.org/data/exp/ds/'
const EPOCH = 1_800_000_000_000

/** A storage in memory that takes the tokens which the server below gives out. */
class MemoryStorage {
  readonly files = new Map<string, Buffer>()
  readonly tokens = new Set<string>()
  puts = 0
  /** What is stored instead of what was sent. */
  damage: ((sent: Buffer) => Buffer) | undefined
  /** The answer to a PUT gets lost. */
  failsAfterPut = false

  #see(token: Secret | undefined): void {
    this.tokens.add(token?.reveal() ?? '')
  }

  readonly client: UploadOptions['storage'] & DownloadOptions['storage'] = {
    head: async (url, token): Promise<FileStatus> => {
      this.#see(token)
      const file = this.files.get(url)
      if (file === undefined) return { exists: false }
      return { exists: true, size: file.length, checksums: { adler32: adler32Hex(adler32(file)) } }
    },
    put: async (url, token, body) => {
      this.#see(token)
      this.puts += 1
      const chunks: Buffer[] = []
      for await (const chunk of body) chunks.push(chunk as Buffer)
      const sent = Buffer.concat(chunks)
      this.files.set(url, this.damage?.(sent) ?? sent)
      if (this.failsAfterPut) throw new Error('the answer got lost')
      return {}
    },
    remove: async (url, token) => {
      this.#see(token)
      return { existed: this.files.delete(url) }
    },
    get: async (url, token) => {
      this.#see(token)
      const file = this.files.get(url) ?? Buffer.alloc(0)
      return { body: Readable.from([file]), size: file.length }
    },
  }
}

let scratch = ''

/** As the server answers, as far as uploads go. */
function uploadServer(clock: Clock, lifeMs: number, refused: readonly string[] = []) {
  const confirmed: string[] = []
  let plans = 0
  const client: UploadOptions['client'] = {
    planUpload: async ({ body }) => {
      plans += 1
      const context = `grant:1:${plans}`
      return {
        files: body.files.map(({ did }) => ({
          did,
          url: URL_BASE + did.replace('exp:ds/', ''),
          done: confirmed.includes(did),
        })),
        checksum: 'adler32',
        context,
        token: await sealFor(body.key, new Secret(`token-${plans}`), context),
        expiresAt: clock.now() + lifeMs,
      }
    },
    confirmUpload: async ({ body }) => {
      const taken = body.files.filter(did => !refused.includes(did))
      confirmed.push(...taken)
      const others = refused.map(did => ({ did, code: 'UPLOAD_DISTURBED', message: 'a worker has written there' }))
      return { available: taken.length, refused: others }
    },
  }
  return { client, confirmed, plans: () => plans }
}

function steppingClock(stepMs: number): Clock {
  let now = EPOCH
  return {
    now: () => {
      now += stepMs
      return now
    },
    monotonic: () => now,
    sleep: async () => undefined,
  }
}

async function rejection(promise: Promise<unknown>): Promise<{ message: string; code?: string }> {
  const error = await promise.then(
    () => undefined,
    reason => reason as unknown,
  )
  if (error instanceof Error) return error
  throw new Error('it did not reject')
}

describe('command line: upload and download', () => {
  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'waybill-cli-'))
    await mkdir(join(scratch, 'data', 'deep'), { recursive: true })
    await writeFile(join(scratch, 'data', 'a'), 'aaaa')
    await writeFile(join(scratch, 'data', 'deep', 'b'), Buffer.alloc(100_000, 7))
    await writeFile(join(scratch, 'data', 'empty'), '')
  })
  after(() => rm(scratch, { recursive: true }))

  const local = () => findLocalFiles([join(scratch, 'data')])
  const upload = async (
    storage: MemoryStorage,
    server: ReturnType<typeof uploadServer>,
    clock: Clock,
    more: { replace?: boolean } = {},
  ) =>
    uploadFiles({
      ...more,
      client: server.client,
      storage: storage.client,
      clock,
      rse: 'SITE-A',
      dataset: 'exp:ds',
      files: await local(),
      width: 2,
    })

  it('finds files by their names, those of a directory by their paths below it', async () => {
    expect((await local()).map(({ name, bytes }) => [name, bytes])).to.deep.equal([
      ['a', 4],
      ['deep/b', 100_000],
      ['empty', 0],
    ])
    const [single] = await findLocalFiles([join(scratch, 'data', 'deep', 'b')])
    expect(single?.name).to.equal('b')
  })

  it('takes links to files for the files, names that a dataset may hold, and no links to directories', async () => {
    const directory = join(scratch, 'linked')
    await mkdir(directory)
    await writeFile(join(directory, '_x'), 'abc')
    await symlink(join(directory, '_x'), join(directory, '.link'))
    const found = await findLocalFiles([directory])
    expect(found.map(({ name, bytes }) => [name, bytes])).to.deep.equal([
      ['.link', 3],
      ['_x', 3],
    ])
    await symlink(directory, join(directory, 'loop'))
    expect((await rejection(findLocalFiles([directory]))).message).to.contain('no file, nor a link to one')
  })

  it('refuses names before anything is sent', async () => {
    const odd = join(scratch, 'a b')
    await writeFile(odd, '')
    expect(await rejection(findLocalFiles([odd])))
      .to.be.instanceOf(UsageError)
      .and.have.property('message')
      .that.contains('white space')
    const twice = [join(scratch, 'data', 'a'), join(scratch, 'data', 'a')]
    expect((await rejection(findLocalFiles(twice))).message).to.contain('would both be called a')
  })

  it('sends what is planned with the sealed token, verifies and confirms; again it sends nothing', async () => {
    const clock = steppingClock(1)
    const storage = new MemoryStorage()
    const server = uploadServer(clock, 3_600_000)
    expect(await upload(storage, server, clock)).to.deep.equal({ files: 3, bytes: 100_004, skipped: 0 })
    expect(server.confirmed).to.have.members(['exp:ds/a', 'exp:ds/deep/b', 'exp:ds/empty'])
    expect([...storage.tokens]).to.deep.equal(['token-1'])
    expect(storage.files.get(`${URL_BASE}a`)?.toString()).to.equal('aaaa')
    expect(await upload(storage, server, clock)).to.deep.equal({ files: 3, bytes: 100_004, skipped: 3 })
    expect(storage.puts).to.equal(3)
  })

  it('says which file was not taken, and confirms the others', async () => {
    const clock = steppingClock(1)
    const server = uploadServer(clock, 3_600_000, ['exp:ds/a'])
    const error = await rejection(upload(new MemoryStorage(), server, clock))
    expect(error).to.have.property('code', 'UPLOAD_DISTURBED')
    expect(error.message).to.equal('exp:ds/a: a worker has written there; repeat the upload')
    expect(server.confirmed).to.have.members(['exp:ds/deep/b', 'exp:ds/empty'])
  })

  it('plans anew when the token is about to end', async () => {
    const clock = steppingClock(400)
    const storage = new MemoryStorage()
    const server = uploadServer(clock, 1000)
    expect(await upload(storage, server, clock)).to.include({ files: 3 })
    expect(server.plans()).to.be.above(1)
    expect(server.confirmed).to.have.length(3)
  })

  it('sees a file that was damaged on its way, and confirms it to nobody', async () => {
    const clock = steppingClock(1)
    const storage = new MemoryStorage()
    const server = uploadServer(clock, 3_600_000)
    storage.damage = sent => Buffer.concat([sent, Buffer.from('x')])
    expect(await rejection(upload(storage, server, clock))).to.have.property('code', 'UPLOAD_DAMAGED')
    expect(server.confirmed).to.deep.equal([])
  })

  it('believes what lies there, not how the sending ended', async () => {
    const clock = steppingClock(1)
    const storage = new MemoryStorage()
    const server = uploadServer(clock, 3_600_000)
    storage.failsAfterPut = true
    expect(await upload(storage, server, clock)).to.include({ files: 3 })
  })

  it('overwrites no other file', async () => {
    const clock = steppingClock(1)
    const storage = new MemoryStorage()
    storage.files.set(`${URL_BASE}a`, Buffer.from('bbbb'))
    const error = await rejection(upload(storage, uploadServer(clock, 3_600_000), clock))
    expect(error).to.have.property('code', 'UPLOAD_CONFLICT')
    expect(storage.files.get(`${URL_BASE}a`)?.toString()).to.equal('bbbb')
  })

  it('removes what a broken-off upload left, when it is told to', async () => {
    const clock = steppingClock(1)
    const storage = new MemoryStorage()
    storage.files.set(`${URL_BASE}a`, Buffer.from('b'))
    const server = uploadServer(clock, 3_600_000)
    expect(await upload(storage, server, clock, { replace: true })).to.include({ files: 3 })
    expect(server.confirmed.length).to.equal(3)
  })

  /** Serves two files, the second on a second page and with a token of its own. */
  function downloadServer(sums: { adler32: string }[], expiresAt = EPOCH + 3_600_000): DownloadOptions['client'] {
    const did = (name: string, type: 'DATASET' | 'CONTAINER') => ({
      did: name,
      type,
      bytes: 0,
      files: 0,
      open: true,
      account: 'alice',
      createdAt: 0,
    })
    return {
      getDid: async ({ params }) => did(`exp:${params.name}`, params.name === 'all' ? 'CONTAINER' : 'DATASET'),
      listContents: async () => ({ items: [did('exp:ds', 'DATASET'), did('exp:ds', 'DATASET')] }),
      planDownload: async ({ body }) => {
        const page = body.cursor === undefined ? 0 : 1
        const context = `grant:${page}`
        const [name, bytes] = page === 0 ? ['exp:a', 4] : ['other:deep/b', 100_000]
        const url = URL_BASE + name.split(':')[1]
        return {
          files: [{ did: name, url, bytes, access: 0, ...sums[page] }],
          accesses: [{ context, token: await sealFor(body.key, new Secret(`token-${page}`), context), expiresAt }],
          unavailable: page === 0 ? [] : ['exp:lost'],
          ...(page === 0 ? { next: 'more' } : {}),
        }
      },
    }
  }

  it('fetches all pages of a container once, verifies, and skips what is here', async () => {
    const storage = new MemoryStorage()
    const files = await local()
    for (const { path, name } of files) storage.files.set(URL_BASE + name, await readFile(path))
    const sums = await Promise.all(files.slice(0, 2).map(({ path, bytes }) => sumsOf(path, bytes)))
    const to = join(scratch, 'to')
    const clock = steppingClock(1)
    const options = { client: downloadServer(sums), storage: storage.client, clock, did: 'exp:all', to }
    const counts = { files: 2, bytes: 100_004, skipped: 0, unavailable: ['exp:lost'] }
    expect(await downloadFiles(options)).to.deep.equal(counts)
    expect(await readFile(join(to, 'a'), 'utf8')).to.equal('aaaa')
    expect((await readFile(join(to, 'other', 'deep', 'b'))).length).to.equal(100_000)
    expect([...storage.tokens]).to.deep.equal(['token-0', 'token-1'])
    expect(await downloadFiles(options)).to.deep.equal({ ...counts, skipped: 2 })
    await writeFile(join(to, 'a'), 'AAAA')
    const conflict = await rejection(downloadFiles(options))
    expect(conflict).to.have.property('code', 'DOWNLOAD_CONFLICT')
    expect(conflict.message).to.contain(join(to, 'a')).and.to.contain('--overwrite')
    expect(await readFile(join(to, 'a'), 'utf8')).to.equal('AAAA')
    expect(await downloadFiles({ ...options, overwrite: true })).to.deep.equal({ ...counts, skipped: 1 })
    expect(await readFile(join(to, 'a'), 'utf8')).to.equal('aaaa')
  })

  /** One page of files, each with its own content, and tokens that live so long. */
  function onePage(clock: Clock, lifeMs: number, contents: Record<string, string>, storage: MemoryStorage) {
    let plans = 0
    for (const [name, content] of Object.entries(contents)) storage.files.set(URL_BASE + name, Buffer.from(content))
    const client: DownloadOptions['client'] = {
      ...downloadServer([]),
      planDownload: async ({ body }) => {
        plans += 1
        const context = `grant:${plans}`
        const token = await sealFor(body.key, new Secret(`token-${plans}`), context)
        const files = Object.entries(contents).map(([name, content]) => ({
          did: `exp:${name}`,
          url: URL_BASE + name,
          bytes: content.length,
          adler32: adler32Hex(adler32(Buffer.from(content))),
          access: 0,
        }))
        return { files, accesses: [{ context, token, expiresAt: clock.now() + lifeMs }], unavailable: ['exp:lost'] }
      },
    }
    return { client, plans: () => plans }
  }

  it('fetches files whose names end as drafts might', async () => {
    const clock = steppingClock(1)
    const storage = new MemoryStorage()
    const contents = { x: 'of x', 'x.part': 'of x.part' }
    const { client } = onePage(clock, 3_600_000, contents, storage)
    const to = join(scratch, 'parts')
    const options = { client, storage: storage.client, clock, did: 'exp:ds', to, width: 1 }
    expect(await downloadFiles(options)).to.include({ files: 2, skipped: 0 })
    for (const [name, content] of Object.entries(contents)) {
      expect(await readFile(join(to, name), 'utf8')).to.equal(content)
    }
    await rm(join(to, 'x'))
    // What was fetched before is not taken for a draft of the other.
    expect(await downloadFiles(options)).to.include({ files: 2, skipped: 1 })
    expect(await readFile(join(to, 'x.part'), 'utf8')).to.equal('of x.part')
  })

  it('plans a page anew when its tokens are about to end, and fetches each file once', async () => {
    const clock = steppingClock(400)
    const storage = new MemoryStorage()
    const contents = { a: 'aaaa', b: 'bb', c: 'c' }
    const { client, plans } = onePage(clock, 1000, contents, storage)
    const to = join(scratch, 'short-lived')
    const options = { client, storage: storage.client, clock, did: 'exp:ds', to, width: 1 }
    expect(await downloadFiles(options)).to.deep.equal({ files: 3, bytes: 7, skipped: 0, unavailable: ['exp:lost'] })
    expect(plans()).to.be.above(1)
    expect([...storage.tokens]).to.have.length(plans())
  })

  it('leaves nothing of a file that came damaged', async () => {
    const storage = new MemoryStorage()
    storage.files.set(`${URL_BASE}a`, Buffer.from('bbbb'))
    const to = join(scratch, 'damaged')
    const client = downloadServer([{ adler32: '00000000' }])
    const clock = steppingClock(1)
    const error = await rejection(downloadFiles({ client, storage: storage.client, clock, did: 'exp:ds', to }))
    expect(error).to.have.property('code', 'DOWNLOAD_DAMAGED')
    expect(await rejection(readFile(join(to, 'a')))).to.have.property('code', 'ENOENT')
    expect(await readdir(to)).to.deep.equal([])
  })
})
