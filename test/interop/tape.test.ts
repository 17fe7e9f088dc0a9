import { execFile } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect } from 'chai'
import {
  prepareSandbox,
  type RunningIssuer,
  type RunningStorage,
  type Sandbox,
  startIssuer,
  startStorage,
} from '../../sandbox/main.ts'
import { environment } from '../../shared/runtime/environment.ts'
import { requireComponents } from './components.ts'

const run = promisify(execFile)
const FILE = '/data/gfal/file'

/** The tape front of an embedded storage under the hands of the client that FTS uses. */
describe('the tape API of an embedded storage and gfal2', () => {
  let directory: string
  let sandbox: Sandbox
  let issuer: RunningIssuer
  let storage: RunningStorage | undefined
  let url: string

  before(async function () {
    requireComponents(this, ['curl', 'openssl', 'gfal2'])
    directory = await mkdtemp(join(tmpdir(), 'waybill-tape-'))
    sandbox = await prepareSandbox({ dir: join(directory, 'sandbox'), portBase: 0 })
    issuer = await startIssuer(sandbox)
    url = sandbox.storages[0]?.url ?? ''
    await mkdir(join(directory, 'certificates'))
    await copyFile(sandbox.authority.caFile, join(directory, 'certificates/ca.pem'))
    await run('openssl', ['rehash', join(directory, 'certificates')])
  })
  afterEach(async () => {
    await storage?.stop()
    storage = undefined
  })
  after(async () => {
    await issuer?.stop()
    if (directory !== undefined) await rm(directory, { recursive: true })
  })

  const curl = async (...args: string[]): Promise<string> =>
    (await run('curl', ['--silent', '--fail', '--cacert', sandbox.authority.caFile, ...args])).stdout

  async function token(scope: string): Promise<string> {
    const { id, secret } = sandbox.clients.server
    const form = ['grant_type=client_credentials', `scope=${scope}`].flatMap(field => ['--data-urlencode', field])
    const answer = await curl('--user', `${id}:${secret.reveal()}`, ...form, `${sandbox.issuer}/token`)
    return String(JSON.parse(answer).access_token)
  }

  const gfal = async (command: string, ...args: string[]): Promise<string> => {
    const env = {
      ...environment,
      BEARER_TOKEN: await token('storage.stage:/gfal storage.read:/gfal'),
      X509_CERT_DIR: join(directory, 'certificates'),
      GFAL_PYTHONBIN: '/usr/bin/python3',
    }
    return (await run(`gfal-${command}`, args, { env })).stdout.trim()
  }

  for (const dialect of ['dcache', 'eos'] as const) {
    it(`asks where a file is, waits until it is on tape, and recalls it: ${dialect}`, async () => {
      storage = await startStorage(sandbox, 'SITE-A', { tape: { dialect, secondsPerFile: 1, archiveSeconds: 3600 } })
      const address = `${url.replace('https', 'davs')}${FILE}`
      const bearer = `Authorization: Bearer ${await token('storage.modify:/gfal')}`
      await curl('-H', bearer, '--request', 'PUT', '--data', 'a waybill', `${url}${FILE}`)
      const status = () => gfal('xattr', address, 'user.status')
      expect(await status()).to.equal('ONLINE')
      if (storage.tape !== undefined) storage.tape.settings.archiveSeconds = 0
      expect(await gfal('archivepoll', '--polling-timeout', '30', address)).to.match(/READY$/)
      expect(await status()).to.equal('ONLINE_AND_NEARLINE')
      expect(await storage.tape?.evict(FILE)).to.equal(true)
      expect(await status()).to.equal('NEARLINE')
      expect(await gfal('bringonline', '--polling-timeout', '30', address)).to.match(/READY$/)
      expect(await status()).to.equal('ONLINE_AND_NEARLINE')
      expect(await storage.tape?.evict(FILE)).to.equal(false)
    })
  }
})
