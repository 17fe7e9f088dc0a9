import { execFile } from 'node:child_process'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
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
import { systemRandom } from '../../shared/runtime/random.ts'
import { requireComponents } from './components.ts'
import { startXrootd, type Xrootd } from './xrootd.ts'

const run = promisify(execFile)

/** Larger than what the storages read and send at one go. */
const CONTENT = systemRandom.bytes(700_000)

/**
 * The embedded issuer and storages under the hands of real clients. The sandbox's CA is given to each of them by its
 * own flag or variable; the host's trust store is never touched.
 */
describe('the embedded storages and real clients', () => {
  let directory: string
  let sandbox: Sandbox
  let services: (RunningIssuer | RunningStorage)[]
  let a: string
  let b: string

  before(async function () {
    requireComponents(this, ['curl', 'openssl'])
    directory = await mkdtemp(join(tmpdir(), 'waybill-clients-'))
    sandbox = await prepareSandbox({ dir: join(directory, 'sandbox'), portBase: 0 })
    services = [
      await startIssuer(sandbox),
      await startStorage(sandbox, 'SITE-A'),
      await startStorage(sandbox, 'SITE-B'),
    ]
    const [siteA, siteB] = sandbox.storages.map(({ url }) => url)
    a = `${siteA}/data`
    b = `${siteB}/data`
    await writeFile(local('file'), CONTENT)
    // What OpenSSL calls a CA directory: certificates under the hashes of their subjects.
    await mkdir(local('certificates'))
    await copyFile(sandbox.authority.caFile, local('certificates/ca.pem'))
    await run('openssl', ['rehash', local('certificates')])
  })

  after(async () => {
    for (const service of services ?? []) await service.stop()
    if (directory !== undefined) await rm(directory, { recursive: true })
  })

  const local = (name: string) => join(directory, name)
  const stored = (storage: number, path: string) =>
    readFile(join(sandbox.storages[storage]?.directory ?? '', 'data', path))

  const curl = async (...args: string[]): Promise<string> =>
    (await run('curl', ['--silent', '--show-error', '--cacert', sandbox.authority.caFile, ...args])).stdout

  /** By client credentials, as a shell script would. Without an audience the token is good at every storage. */
  async function token(scope: string, audience?: string): Promise<string> {
    const { id, secret } = sandbox.clients.server
    const answer = await curl(
      ...[
        '--user',
        `${id}:${secret.reveal()}`,
        '--data',
        'grant_type=client_credentials',
        '--data-urlencode',
        `scope=${scope}`,
      ],
      ...(audience === undefined ? [] : ['--data-urlencode', `audience=${audience}`]),
      `${sandbox.issuer}/token`,
    )
    return String(JSON.parse(answer).access_token)
  }
  /** A third-party copy of a new file; gives the markers and the outcome. */
  const copy = (url: string, activeToken: string, other: string, passiveToken: string): Promise<string> =>
    curl(
      ...['--request', 'COPY', '--header', 'Credential: none', '--header', 'Overwrite: F', '--header', other],
      ...['--header', `Authorization: Bearer ${activeToken}`],
      ...['--header', `TransferHeaderAuthorization: Bearer ${passiveToken}`],
      url,
    )

  const audienceOf = (storage: number) => sandbox.storages[storage]?.audience

  describe('curl', () => {
    const status = (...args: string[]) => curl('--output', local('answer'), '--write-out', '%{http_code}', ...args)

    it('uploads (100-continue and chunked), reads ranges and checksums, deletes', async () => {
      const bearer = `Authorization: Bearer ${await token('storage.modify:/curl storage.read:/curl', audienceOf(0))}`
      expect(
        await status('-H', bearer, '-H', 'Expect: 100-continue', '-T', local('file'), `${a}/curl/continued`),
      ).to.equal('201')
      expect((await stored(0, 'curl/continued')).equals(CONTENT)).to.equal(true)
      expect(
        await status('-H', bearer, '-H', 'Transfer-Encoding: chunked', '-T', local('file'), `${a}/curl/chunked`),
      ).to.equal('201')
      expect((await stored(0, 'curl/chunked')).equals(CONTENT)).to.equal(true)
      expect(await status('-H', bearer, '--range', '1000-1999', `${a}/curl/chunked`)).to.equal('206')
      expect((await readFile(local('answer'))).equals(CONTENT.subarray(1000, 2000))).to.equal(true)
      expect(await curl('-H', bearer, '-H', 'Want-Digest: adler32', '--head', `${a}/curl/chunked`)).to.match(
        /^Digest: adler32=[0-9a-f]{8}\r$/m,
      )
      expect(await status('-H', bearer, '-X', 'DELETE', `${a}/curl/chunked`)).to.equal('204')
    })

    it('is refused before it sends a body', async () => {
      const bearer = `Authorization: Bearer ${await token('storage.read:/', audienceOf(0))}`
      const sent = await status(
        '--write-out',
        '%{http_code} %{size_upload}',
        '-H',
        bearer,
        '-H',
        'Expect: 100-continue',
        '-T',
        local('file'),
        `${a}/x`,
      )
      expect(sent).to.equal('403 0')
    })

    it('copies by pull and push with two narrow tokens', async () => {
      await curl(
        '-H',
        `Authorization: Bearer ${await token('storage.create:/', audienceOf(0))}`,
        '-T',
        local('file'),
        `${a}/tpc/file`,
      )
      const read = await token('storage.read:/tpc', audienceOf(0))
      const write = await token('storage.create:/tpc', audienceOf(1))
      expect(await copy(`${b}/tpc/pulled`, write, `Source: ${a}/tpc/file`, read)).to.match(/success: Created\n$/)
      expect(await copy(`${a}/tpc/file`, read, `Destination: ${b}/tpc/pushed`, write)).to.match(/success: Created\n$/)
      for (const name of ['pulled', 'pushed']) expect((await stored(1, `tpc/${name}`)).equals(CONTENT)).to.equal(true)
    })
  })

  describe('davix', () => {
    before(function () {
      requireComponents(this, ['davix'])
    })

    const davix = async (command: string, bearer: string, ...args: string[]): Promise<string> => {
      const trust = ['--capath', local('certificates'), '-H', `Authorization: Bearer ${bearer}`]
      return (await run(`davix-${command}`, [...trust, ...args])).stdout
    }

    it('puts, lists, gets, removes', async () => {
      const bearer = await token('storage.modify:/davix storage.read:/davix', audienceOf(0))
      await davix('mkdir', bearer, `${a}/davix`)
      await davix('put', bearer, local('file'), `${a}/davix/file`)
      expect(await davix('ls', bearer, '-l', `${a}/davix`)).to.match(/ 700000 .* file\n/)
      await davix('get', bearer, `${a}/davix/file`, local('davix'))
      expect((await readFile(local('davix'))).equals(CONTENT)).to.equal(true)
      await davix('rm', bearer, `${a}/davix/file`)
      expect(await davix('ls', bearer, `${a}/davix`)).to.equal('')
    })

    it('copies by pull and push', async () => {
      const source = await token('storage.modify:/davix storage.read:/davix', audienceOf(0))
      const destination = await token('storage.modify:/davix storage.read:/davix', audienceOf(1))
      await davix('put', source, local('file'), `${a}/davix/tpc`)
      const passive = (bearer: string) => ['-H', `TransferHeaderAuthorization: Bearer ${bearer}`]
      await davix('cp', destination, '--copy-mode', 'pull', ...passive(source), `${a}/davix/tpc`, `${b}/davix/pulled`)
      await davix('cp', source, '--copy-mode', 'push', ...passive(destination), `${a}/davix/tpc`, `${b}/davix/pushed`)
      for (const name of ['pulled', 'pushed']) expect((await stored(1, `davix/${name}`)).equals(CONTENT)).to.equal(true)
    })
  })

  describe('gfal2', () => {
    before(function () {
      requireComponents(this, ['gfal2'])
    })

    /** gfal2 has one token for both sides, so it gets one that is good at every storage. */
    const gfal = async (command: string, ...args: string[]): Promise<string> => {
      const env = {
        ...environment,
        BEARER_TOKEN: await token('storage.modify:/gfal storage.read:/gfal'),
        X509_CERT_DIR: local('certificates'),
        // The scripts take the first python on the PATH, which need not be Debian's.
        GFAL_PYTHONBIN: '/usr/bin/python3',
      }
      return (await run(`gfal-${command}`, args, { env })).stdout
    }
    const dav = (url: string) => url.replace(/^https/, 'davs')

    it('uploads, lists, sums, downloads, removes', async () => {
      await gfal('copy', '--parent', `file://${local('file')}`, dav(`${a}/gfal/file`))
      expect(await gfal('ls', '-l', dav(`${a}/gfal`))).to.match(/ 700000 .* file/)
      expect(await gfal('sum', dav(`${a}/gfal/file`), 'ADLER32')).to.match(/ [0-9a-f]{8}\n$/)
      await gfal('copy', '-K', 'ADLER32', dav(`${a}/gfal/file`), `file://${local('gfal')}`)
      expect((await readFile(local('gfal'))).equals(CONTENT)).to.equal(true)
      await gfal('rm', '-r', dav(`${a}/gfal`))
      expect(
        await curl(
          '-o',
          '/dev/null',
          '-w',
          '%{http_code}',
          '-H',
          `Authorization: Bearer ${await token('storage.read:/')}`,
          '--head',
          `${a}/gfal`,
        ),
      ).to.equal('404')
    })

    for (const mode of ['pull', 'push']) {
      it(`copies by ${mode}, the checksum compared at both ends, parents made`, async () => {
        await gfal('copy', '--parent', '--force', `file://${local('file')}`, dav(`${a}/gfal/tpc`))
        await gfal(
          'copy',
          '-K',
          'ADLER32',
          '--parent',
          '--copy-mode',
          mode,
          dav(`${a}/gfal/tpc`),
          dav(`${b}/gfal/${mode}/deep/file`),
        )
        expect((await stored(1, `gfal/${mode}/deep/file`)).equals(CONTENT)).to.equal(true)
      })
    }
  })

  describe('rclone', () => {
    before(function () {
      requireComponents(this, ['rclone'])
    })

    it('copies a tree with odd names there, compares it, copies and moves within, and brings it back', async () => {
      const names = ['plain', "a b%#é&+'.txt", 'deep/er/file']
      for (const name of names) {
        await mkdir(join(local('tree'), name, '..'), { recursive: true })
        await copyFile(local('file'), join(local('tree'), name))
      }
      const bearer = await token('storage.modify:/rclone storage.read:/rclone', audienceOf(0))
      const settings = ['[se]', 'type = webdav', `url = ${a}/rclone`, 'vendor = other', `bearer_token = ${bearer}`, '']
      await writeFile(local('rclone.conf'), settings.join('\n'), { mode: 0o600 })
      const rclone = async (...args: string[]): Promise<string> => {
        const trust = ['--config', local('rclone.conf'), '--ca-cert', sandbox.authority.caFile]
        return (await run('rclone', [...trust, ...args])).stdout
      }
      await rclone('copy', local('tree'), 'se:')
      await rclone('check', '--download', local('tree'), 'se:')
      await rclone('copyto', 'se:plain', 'se:copied')
      await rclone('moveto', 'se:copied', 'se:moved')
      expect((await rclone('lsf', '--files-only', '-R', 'se:')).split('\n').filter(Boolean).sort()).to.deep.equal(
        [...names, 'moved'].sort(),
      )
      await rclone('copy', 'se:', local('back'))
      expect((await readFile(join(local('back'), 'deep/er/file'))).equals(CONTENT)).to.equal(true)
      await rclone('delete', 'se:', '--rmdirs')
      expect(await rclone('lsf', 'se:')).to.equal('')
    })
  })

  describe('XRootD', () => {
    let xrootd: Xrootd | undefined

    before(async function () {
      requireComponents(this, ['xrootd'])
      await chmod(directory, 0o755) // open to the user xrootd; what is secret in it has a mode of its own
      xrootd = await startXrootd({ directory: local('xrootd'), authority: sandbox.authority, issuer: sandbox.issuer })
    })
    after(() => xrootd?.stop())

    for (const [name, content] of [
      ['file', CONTENT],
      ['empty', Buffer.alloc(0)],
    ] as const) {
      it(`takes the ${name} file from an embedded storage and gives it back, each by pull and by push`, async () => {
        if (xrootd === undefined) throw new Error('XRootD was not started')
        const x = xrootd.url
        await writeFile(local(name), content)
        const here = await token('storage.create:/xrd storage.read:/xrd', audienceOf(0))
        const there = await token('storage.create:/xrd storage.read:/xrd', xrootd.audience)
        await curl('-H', `Authorization: Bearer ${here}`, '-T', local(name), `${a}/xrd/${name}`)
        // XRootD before 5.7 makes no parents for a COPY (facts/http-tpc.md section 4).
        await curl('-X', 'MKCOL', '-H', `Authorization: Bearer ${there}`, `${x}/xrd`)
        expect(await copy(`${x}/xrd/${name}-1`, there, `Source: ${a}/xrd/${name}`, here)).to.match(
          /success: Created\n?$/,
        )
        expect(await copy(`${a}/xrd/${name}`, here, `Destination: ${x}/xrd/${name}-2`, there)).to.match(
          /success: Created\n?$/,
        )
        expect(await copy(`${a}/xrd/${name}-1`, here, `Source: ${x}/xrd/${name}-1`, there)).to.match(
          /success: Created\n?$/,
        )
        expect(await copy(`${x}/xrd/${name}-2`, there, `Destination: ${a}/xrd/${name}-2`, here)).to.match(
          /success: Created\n?$/,
        )
        for (const back of [1, 2]) expect((await stored(0, `xrd/${name}-${back}`)).equals(content)).to.equal(true)
      })
    }
  })
})
