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

  async function copy(mode: 'pull' | 'push', options: { active: string; passive: string; from: string; to: string }) {
    const target = mode === 'pull' ? options.to : options.from
    const other = mode === 'pull' ? `Source: ${options.from}` : `Destination: ${options.to}`
    const headers = [
      other,
      `TransferHeaderAuthorization: Bearer ${options.passive}`,
      'Overwrite: F',
      'Credential: none',
    ]
    return curl('-X', 'COPY', ...bearer(options.active), ...headers.flatMap(header => ['-H', header]), target)
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
