import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { prepareSandbox, type RunningIssuer, type Sandbox, startIssuer } from '../../sandbox/main.ts'
import { replicaPath, replicaUrl } from '../../server/storages/paths.ts'
import { parseDid } from '../../shared/domain/names.ts'
import { requireComponents } from './components.ts'
import { startXrootd, type Xrootd } from './xrootd.ts'

const CONTENT = 'a waybill travels with a consignment\n'
const ADLER32 = '070e0dc3'

/**
 * What a real XRootD does with tokens of the embedded issuer, by curl: the ground under all other tests with XRootD.
 * Every answer here was seen from Debian's 5.5.3; facts/http-tpc.md tells how later ones and other storages differ.
 */
describe('XRootD with tokens of the embedded issuer', () => {
  let directory: string
  let sandbox: Sandbox
  let issuer: RunningIssuer
  let a: Xrootd
  let b: Xrootd

  before(async function () {
    requireComponents(this, ['xrootd', 'curl'])
    directory = await mkdtemp(join(tmpdir(), 'waybill-xrootd-'))
    await chmod(directory, 0o755) // open to the user xrootd
    await writeFile(join(directory, 'file'), CONTENT)
    sandbox = await prepareSandbox({ dir: join(directory, 'sandbox'), portBase: 0 })
    issuer = await startIssuer(sandbox)
    a = await start('a')
    b = await start('b')
    const uploaded = await curl(...bearer(await token(a, 'storage.create:/s/ds')), '-T', file(), `${a.url}/s/ds/f`)
    expect(uploaded).to.include({ status: 200 })
    const made = await curl(...bearer(await token(b, 'storage.create:/s/ds')), '-X', 'MKCOL', `${b.url}/s/ds`)
    expect(made).to.include({ status: 201 })
  })

  after(async () => {
    await Promise.all([a?.stop(), b?.stop(), issuer?.stop()])
    if (directory !== undefined) await rm(directory, { recursive: true })
  })

  const file = (): string => join(directory, 'file')

  async function start(name: string): Promise<Xrootd> {
    await mkdir(join(directory, name), { recursive: true })
    return startXrootd({ directory: join(directory, name), authority: sandbox.authority, issuer: sandbox.issuer })
  }

  async function token(storage: Xrootd, scope: string): Promise<string> {
    const form = { grant_type: 'client_credentials', audience: storage.audience, scope }
    const fields = Object.entries(form).flatMap(([name, value]) => ['--data-urlencode', `${name}=${value}`])
    const { id, secret } = sandbox.clients.server
    const answer = await curl('-u', `${id}:${secret.reveal()}`, ...fields, `${sandbox.issuer}/token`)
    expect(answer.status, answer.body).to.equal(200)
    return JSON.parse(answer.body).access_token
  }

  const bearer = (text: string): string[] => ['-H', `Authorization: Bearer ${text}`]

  /** `body` holds the headers too when `-I` is among `options`. */
  async function curl(...options: string[]): Promise<{ status: number; body: string }> {
    const always = ['-sS', '-m', '10', '-w', '\n%{http_code}', '--cacert', sandbox.authority.caFile]
    const { stdout } = await promisify(execFile)('curl', [...always, ...options]).catch(error => {
      throw new Error(error.stderr) // its message would hold the command, and so the token
    })
    const end = stdout.lastIndexOf('\n')
    return { status: Number(stdout.slice(end + 1)), body: stdout.slice(0, end) }
  }

  interface CopyOptions {
    readonly active: string
    readonly passive: string
    readonly from: string
    readonly to: string
    readonly overwrite?: 'T' | 'F'
  }

  async function copy(mode: 'pull' | 'push', options: CopyOptions) {
    const target = mode === 'pull' ? options.to : options.from
    const other = mode === 'pull' ? `Source: ${options.from}` : `Destination: ${options.to}`
    const headers = [
      other,
      `TransferHeaderAuthorization: Bearer ${options.passive}`,
      `Overwrite: ${options.overwrite ?? 'F'}`,
      'Credential: none',
    ]
    return curl('-X', 'COPY', ...bearer(options.active), ...headers.flatMap(header => ['-H', header]), target)
  }

  async function expectMissing(storage: Xrootd, name: string): Promise<void> {
    const found = await readFile(join(storage.dataDirectory, name)).catch(error => error.code)
    expect(found).to.equal('ENOENT')
  }

  it('keeps an upload where the harness says, and tells its size and adler32', async () => {
    expect(await readFile(join(a.dataDirectory, 's/ds/f'), 'utf8')).to.equal(CONTENT)
    const read = bearer(await token(a, 'storage.read:/s/ds'))
    const head = await curl(...read, '-I', '-H', 'Want-Digest: adler32', `${a.url}/s/ds/f`)
    expect(head.status).to.equal(200)
    expect(head.body).to.match(new RegExp(`^Content-Length: ${CONTENT.length}\\r$`, 'm'))
    expect(head.body).to.match(new RegExp(`^Digest: adler32=${ADLER32}\\r$`, 'm'))
  })

  for (const mode of ['pull', 'push'] as const) {
    it(`copies by ${mode}, each side with a token of its own`, async () => {
      const source = await token(a, 'storage.read:/s/ds')
      const destination = await token(b, 'storage.create:/s/ds storage.read:/s/ds')
      const [active, passive] = mode === 'pull' ? [destination, source] : [source, destination]
      const urls = { from: `${a.url}/s/ds/f`, to: `${b.url}/s/ds/${mode}` }
      const answer = await copy(mode, { active, passive, ...urls })
      expect(answer.status, answer.body).to.equal(201)
      expect(answer.body).to.match(/^Perf Marker\n/)
      expect(answer.body).to.match(/\nsuccess: Created$/)
      expect(await readFile(join(b.dataDirectory, 's/ds', mode), 'utf8')).to.equal(CONTENT)
    })
  }

  it("takes the dataset layout's directories, in tokens and in paths", async () => {
    const path = replicaPath('dataset', parseDid('raw:/store/x..y_-.root'), parseDid('cms:/A/B-2026/RAW'))
    expect(path.top).to.equal('/cms/~A~B-2026~RAW')
    const read = await token(a, `storage.read:${path.top}`)
    const write = await token(a, `storage.create:${path.top}`)
    const url = replicaUrl(a.url, path.directory, path.name)
    expect(await curl(...bearer(write), '-T', file(), url)).to.include({ status: 200 })
    expect(await curl(...bearer(read), url)).to.deep.equal({ status: 200, body: CONTENT })
    const elsewhere = await token(a, 'storage.read:/cms/~A~B-2027~RAW')
    expect(await curl(...bearer(elsewhere), url)).to.include({ status: 403 })
  })

  it('says 201 to a pull whose source refuses: the last line is the outcome, and an empty file stays', async () => {
    const active = await token(b, 'storage.create:/s/ds storage.read:/s/ds')
    const urls = { from: `${a.url}/s/ds/f`, to: `${b.url}/s/ds/refused` }
    const answer = await copy('pull', { active, passive: active, ...urls })
    expect(answer.status).to.equal(201)
    expect(answer.body).to.match(/\nfailure: Remote side failed with status code 403; error message: .*$/)
    expect(await readFile(join(b.dataDirectory, 's/ds/refused'), 'utf8')).to.equal('')
  })

  it('says 400 to a push whose source is missing, and leaves nothing', async () => {
    const active = await token(a, 'storage.read:/s/ds')
    const passive = await token(b, 'storage.create:/s/ds')
    const urls = { from: `${a.url}/s/ds/none`, to: `${b.url}/s/ds/pushed` }
    const answer = await copy('push', { active, passive, ...urls })
    expect(answer).to.deep.equal({ status: 400, body: 'Unable to open /exp/s/ds/none; no such file or directory' })
    await expectMissing(b, 's/ds/pushed')
  })

  it('says 401 to a COPY that its own token does not allow', async () => {
    const none = await token(b, 'storage.read:/s/ds')
    const read = await token(a, 'storage.read:/s/ds')
    const urls = { from: `${a.url}/s/ds/f`, to: `${b.url}/s/ds/denied` }
    const pulled = await copy('pull', { active: none, passive: read, ...urls })
    expect(pulled).to.deep.equal({ status: 401, body: 'Unable to create /exp/s/ds/denied; permission denied' })
    const elsewhere = await token(a, 'storage.read:/s/other')
    const pushed = await copy('push', { active: elsewhere, passive: none, ...urls })
    expect(pushed).to.deep.equal({ status: 401, body: 'Unable to open /exp/s/ds/f; permission denied' })
    await expectMissing(b, 's/ds/denied')
  })

  it('keeps with Overwrite: F what a pull finds there (412), but overwrites it by push', async () => {
    const read = await token(a, 'storage.read:/s/ds')
    const write = await token(b, 'storage.modify:/s/ds storage.read:/s/ds')
    const urls = { from: `${a.url}/s/ds/f`, to: `${b.url}/s/ds/there` }
    const kept = join(b.dataDirectory, 's/ds/there')
    await copy('pull', { active: write, passive: read, ...urls })
    await writeFile(kept, 'another')
    const pulled = await copy('pull', { active: write, passive: read, ...urls })
    expect(pulled).to.deep.equal({ status: 412, body: 'Unable to create /exp/s/ds/there; file exists' })
    expect(await readFile(kept, 'utf8')).to.equal('another')
    const pushed = await copy('push', { active: read, passive: write, ...urls })
    expect(pushed.body).to.match(/\nsuccess: Created$/)
    expect(await readFile(kept, 'utf8')).to.equal(CONTENT)
  })

  it('empties a good file with Overwrite: T when the source is bad', async () => {
    const read = await token(a, 'storage.read:/s/ds')
    const write = await token(b, 'storage.modify:/s/ds storage.read:/s/ds')
    const urls = { from: `${a.url}/s/ds/f`, to: `${b.url}/s/ds/good` }
    await copy('pull', { active: write, passive: read, ...urls })
    const bad = { ...urls, from: `${a.url}/s/ds/none` }
    const answer = await copy('pull', { active: write, passive: read, ...bad, overwrite: 'T' })
    expect(answer.status).to.equal(201)
    expect(answer.body).to.match(/\nfailure: Remote side failed with status code 404/)
    expect(await readFile(join(b.dataDirectory, 's/ds/good'), 'utf8')).to.equal('')
  })

  it('knows headers by their documented capitals only', async () => {
    const read = await token(a, 'storage.read:/s/ds')
    expect(await curl('-H', `authorization: Bearer ${read}`, `${a.url}/s/ds/f`)).to.include({ status: 403 })
    const head = await curl(...bearer(read), '-I', '-H', 'want-digest: adler32', `${a.url}/s/ds/f`)
    expect(head.status).to.equal(200)
    expect(head.body).not.to.match(/^digest/im)
    const write = bearer(await token(b, 'storage.create:/s/ds'))
    const source = await curl('-X', 'COPY', ...write, '-H', `source: ${a.url}/s/ds/f`, `${b.url}/s/ds/lower`)
    expect(source).to.deep.equal({ status: 400, body: 'No Source or Destination specified' })
  })

  it('tells its first checksum when it is asked for one that it does not have', async () => {
    const read = bearer(await token(a, 'storage.read:/s/ds'))
    const head = await curl(...read, '-I', '-H', 'Want-Digest: sha-256', `${a.url}/s/ds/f`)
    expect(head.body).to.match(new RegExp(`^Digest: adler32=${ADLER32}\\r$`, 'm'))
  })

  it('makes a directory that is there once more, with its parents: 201', async () => {
    const write = bearer(await token(b, 'storage.create:/s/ds'))
    for (const _ of [1, 2]) {
      expect(await curl(...write, '-X', 'MKCOL', `${b.url}/s/ds/deep/er`)).to.include({ status: 201 })
    }
  })

  it('makes no parents for a COPY', async () => {
    const passive = await token(a, 'storage.read:/s/ds')
    const active = await token(b, 'storage.create:/s/new storage.read:/s/new')
    const answer = await copy('pull', { active, passive, from: `${a.url}/s/ds/f`, to: `${b.url}/s/new/f` })
    expect(answer.status, answer.body).to.equal(400)
  })

  // A wrong audience should be 401 by the WLCG profile (facts/tokens.md section 1): XRootD treats the bearer as nobody, who has no rights.
  const refusals: [what: string, tokenFor: () => Xrootd, scope: string, request: () => string[]][] = [
    ['a token for the other storage', () => b, 'storage.read:/s/ds', () => [`${a.url}/s/ds/f`]],
    ['reading in another directory', () => a, 'storage.read:/s/other', () => [`${a.url}/s/ds/f`]],
    ['writing with a read token', () => a, 'storage.read:/s/ds', () => ['-T', file(), `${a.url}/s/ds/new`]],
    ['writing to another directory', () => a, 'storage.create:/s/ds', () => ['-T', file(), `${a.url}/s/other/new`]],
    ['overwriting with a create token', () => a, 'storage.create:/s/ds', () => ['-T', file(), `${a.url}/s/ds/f`]],
    ['HEAD with a create token', () => a, 'storage.create:/s/ds', () => ['-I', `${a.url}/s/ds/f`]],
    ['DELETE with a create token', () => a, 'storage.create:/s/ds', () => ['-X', 'DELETE', `${a.url}/s/ds/f`]],
  ]
  for (const [what, tokenFor, scope, request] of refusals) {
    it(`refuses ${what}: 403`, async () => {
      expect(await curl(...bearer(await token(tokenFor(), scope)), ...request())).to.include({ status: 403 })
      expect(await readFile(join(a.dataDirectory, 's/ds/f'), 'utf8')).to.equal(CONTENT)
    })
  }

  it('refuses who has no token: 403', async () => {
    expect(await curl(`${a.url}/s/ds/f`)).to.include({ status: 403 })
  })

  it('keeps its data, and trusts the same issuer, over a restart', async () => {
    await b.stop()
    b = await start('b')
    await writeFile(join(b.dataDirectory, 'left'), CONTENT)
    const answer = await curl(...bearer(await token(b, 'storage.read:/left')), `${b.url}/left`)
    expect(answer).to.deep.equal({ status: 200, body: CONTENT })
  })
})
