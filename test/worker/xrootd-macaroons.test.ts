import { chmod, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { createSecureContext } from 'node:tls'
import { expect } from 'chai'
import type { ClaimedTransfer } from '../../shared/contract/routes/worker.ts'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import type { Secret } from '../../shared/domain/secret.ts'
import { createAgentClient } from '../../shared/http/agent-client.ts'
import type { Trust } from '../../shared/http/trust.ts'
import { systemClock as clock } from '../../shared/runtime/clock.ts'
import { type Activity, type StorageClient, StorageError } from '../../shared/storage/types.ts'
import { Storages } from '../../worker/storages.ts'
import { requireComponents } from '../interop/components.ts'
import { startXrootd, type Xrootd } from '../interop/xrootd.ts'
import { lies, place } from '../interop/xrootd-files.ts'
import { Stage } from './stage.ts'
import { CLEAN_UP } from './stand-in-server.ts'

const TRAITS = {
  canPull: true,
  canPush: true,
  checksum: 'adler32',
  checksumPolicy: 'destination',
  watchdogs: {},
  freshConnections: false,
  redirectHosts: [] as string[],
} as const

/**
 * libXrdMacaroons looks at the client's certificate, and never at the token that comes with the request (docs/operations.md,
 * Storages that issue macaroons). So this worker shows one, the host's, wherever it does not send a COPY.
 */
describe('an attempt between real XRootD servers, one of which issues macaroons', () => {
  let stage: Stage
  let directory: string
  let issuing: Xrootd
  let plain: Xrootd
  const clients: { close: () => void }[] = []
  let certified: Storages
  /** Shows no certificate, and uses no connection twice. */
  let unkept: Storages
  let transfers = 0

  before(async function () {
    requireComponents(this, ['xrootd'])
    stage = await Stage.create()
    directory = await mkdtemp(join(tmpdir(), 'waybill-xrootd-macaroons-'))
    await chmod(directory, 0o755)
    const { authority, issuer } = stage.sandbox
    const start = async (name: string, macaroons: boolean) => {
      await mkdir(join(directory, name))
      const configuration = macaroons ? ['macaroons.trace info'] : []
      return startXrootd({ directory: join(directory, name), authority, issuer, macaroons, configuration })
    }
    issuing = await start('issuing', true)
    plain = await start('plain', false)
    const files = [authority.caFile, authority.certificateFile, authority.keyFile].map(file => readFile(file))
    const [ca, cert, key] = await Promise.all(files)
    const client = (certificate: object, fresh = false) => {
      const context = createSecureContext({ ...(ca === undefined ? {} : { ca }), ...certificate })
      const trust: Trust = { secureContext: () => context }
      const made = createAgentClient({ trust, clock, fresh })
      clients.push(made)
      return made
    }
    const copyClient = client({})
    const pools = { copyClient, freshCopyClient: copyClient, clock }
    certified = new Storages({ ...pools, client: client({ cert, key }) })
    unkept = new Storages({ ...pools, client: client({}, true) })
  })
  after(async () => {
    for (const client of clients) client.close()
    await stage?.end()
    await Promise.all([issuing?.stop(), plain?.stop()])
    if (directory !== undefined) await rm(directory, { recursive: true })
  })

  let stop: () => Promise<void> = async () => undefined
  const begin = (storages: Storages) => {
    ;({ stop } = stage.start({ storages }))
  }
  afterEach(() => stop())

  /** A file at one of them, and the transfer that brings it to the other; all of one direction share their grants. */
  async function transfer(mode: 'pull' | 'push', name: string, content: string): Promise<ClaimedTransfer> {
    const [source, destination, base] = mode === 'pull' ? [issuing, plain, 100] : [plain, issuing, 200]
    await place(source, name, content)
    const grant = (storage: Xrootd, ...verbs: string[]) => ({
      audience: storage.audience,
      scopes: verbs.map(verb => `storage.${verb}:/s`),
      generation: 0,
      exchange: true,
      exchanged: false,
    })
    transfers += 1
    const { grants, storages } = stage.server
    if (!grants.has(base)) grants.set(base, grant(source, 'read')).set(base + 1, grant(destination, 'create', 'read'))
    grants.set(transfers + CLEAN_UP, grant(destination, 'modify', 'read'))
    const [sourceName, destinationName] = [`SOURCE-${mode}`, `DESTINATION-${mode}`]
    storages.set(sourceName, { rse: sourceName, ...TRAITS, macaroons: mode === 'pull' })
    storages.set(destinationName, {
      rse: destinationName,
      ...TRAITS,
      canPull: mode === 'pull',
      macaroons: mode === 'push',
    })
    const bytes = Buffer.from(content)
    return {
      transfer: transfers,
      fence: 1,
      kind: 'copy',
      did: `s:${name}`,
      bytes: bytes.length,
      adler32: adler32Hex(adler32(bytes)),
      source: { rse: sourceName, url: `${source.url}/${name}`, grant: base },
      destination: { rse: destinationName, url: `${destination.url}/${name}`, grant: base + 1 },
    }
  }
  const run = async (...works: ClaimedTransfer[]) => {
    stage.server.enqueue(...works)
    return Promise.all(works.map(work => stage.server.outcomeOf(work.transfer)))
  }
  /** Of all macaroons that were good for something so far, by their own ids. */
  const taken = async () =>
    new Set(
      Array.from((await issuing.log()).matchAll(/Macaroon verification successful; ID (\S+)/g), match => match[1]),
    )

  for (const mode of ['pull', 'push'] as const) {
    it(`${mode}s many files with one macaroon for their directory, which is not there yet`, async () => {
      begin(certified)
      const before = await taken()
      const works = await Promise.all(
        Array.from({ length: 20 }, (_, i) => transfer(mode, `s/${mode}/deep/er/f${i}`, `content of file ${i}`)),
      )
      const ends = await run(...works)
      expect(ends.filter(({ result }) => result !== 'done').map(end => end.error ?? end)).to.deep.equal([])
      expect(ends.map(end => end.mode)).to.deep.equal(works.map(() => mode))
      const destination = mode === 'pull' ? plain : issuing
      expect(String(await lies(destination, `s/${mode}/deep/er/f7`))).to.equal('content of file 7')
      expect([...(await taken())].filter(id => !before.has(id))).to.have.length(1)
    })
  }

  it('is refused clearly where the token is all that is shown: the macaroon is good for nothing', async () => {
    begin(stage.options.storages)
    const [outcome] = await run(await transfer('pull', 's/token-only/f', 'content'))
    expect(outcome).to.include({ result: 'failed' })
    expect(outcome?.error).to.include({ code: 'PERMISSION_DENIED', scope: 'SOURCE', retryable: false })
    expect(outcome?.error?.message).to.contain('lacks DOWNLOAD')
    expect(await lies(plain, 's/token-only/f')).to.equal(undefined)
  })

  it('is refused clearly by an XRootD that issues none', async () => {
    begin(certified)
    const work = await transfer('pull', 's/none/f', 'content')
    await place(plain, 's/none/f', 'content')
    const from = { ...work.source, url: `${plain.url}/s/none/f`, grant: 300 }
    const { grants } = stage.server
    const scopes = ['storage.read:/s']
    grants.set(300, { audience: plain.audience, scopes, generation: 0, exchange: true, exchanged: false })
    const to = { ...work.destination, url: `${plain.url}/s/none/g` }
    const [outcome] = await run({ ...work, source: from, destination: to })
    expect(outcome?.error).to.include({ code: 'NOT_SUPPORTED', scope: 'SOURCE', retryable: false })
    expect(outcome?.error?.message).to.match(/^no macaroon: POST answered 501/)
  })

  describe('and such a macaroon', () => {
    let storage: StorageClient
    before(async () => {
      storage = certified.client(TRAITS, issuing.url)
      for (const name of ['s/ds/f', 's/ds/sub/f', 's/dsx/f']) await place(issuing, name, 'content')
    })
    const issued = async (path: string, activity: Activity, lifeSeconds = 60) =>
      (await storage.macaroon(`${issuing.url}/${path}`, undefined, { activity, lifeSeconds })).token
    const status = (run: Promise<unknown>): Promise<unknown> =>
      run.then(
        () => 'done',
        (error: unknown) => (error instanceof StorageError ? error.failure.httpStatus : error),
      )
    const read = (token: Secret, path: string, storages = unkept) =>
      status(
        storages
          .client(TRAITS, issuing.url)
          .get(`${issuing.url}/${path}`, token)
          .then(({ body }) => body.resume()),
      )
    const write = (token: Secret, path: string) => {
      const body = Readable.from([Buffer.from('x')])
      const client = unkept.client(TRAITS, issuing.url)
      return status(client.put(`${issuing.url}/${path}`, token, body, 1, { overwrite: true }))
    }

    it('for DOWNLOAD reads below its directory, which is what the slash at its end is for', async () => {
      const token = await issued('s/ds/', 'DOWNLOAD')
      expect([await read(token, 's/ds/f'), await read(token, 's/ds/sub/f')]).to.deep.equal(['done', 'done'])
      expect([await read(token, 's/dsx/f'), await write(token, 's/ds/new')]).to.deep.equal([403, 403])
      const neighbours = await issued('s/ds', 'DOWNLOAD')
      expect(await read(neighbours, 's/dsx/f'), 'until 5.9.1').to.equal('done')
    })

    it('for UPLOAD makes new files and overwrites none', async () => {
      const token = await issued('s/ds/', 'UPLOAD')
      expect([await write(token, 's/ds/new'), await write(token, 's/ds/f')]).to.deep.equal(['done', 403])
      expect(await write(token, 's/dsx/new')).to.equal(403)
    })

    it('opens, until 5.9.6, on a connection where it was good for something all that authdb gives to who asked', async () => {
      const token = await issued('s/ds/', 'UPLOAD')
      const kept = stage.options.storages
      expect(await status(kept.client(TRAITS, issuing.url).head(`${issuing.url}/s/ds/f`, token))).to.equal('done')
      expect(await read(token, 's/dsx/f', kept)).to.equal('done')
    })

    it('ends', async () => {
      const token = await issued('s/ds/', 'DOWNLOAD', 2)
      expect(await read(token, 's/ds/f')).to.equal('done')
      await clock.sleep(2_100)
      expect(await read(token, 's/ds/f')).to.equal(403)
    })
  })
})
