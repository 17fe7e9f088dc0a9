import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeJwt } from 'jose'
import { prepareSandbox, type RunningIssuer, type Sandbox, startIssuer } from '../../sandbox/main.ts'
import type { HttpClient } from '../../shared/http/client.ts'
import { asFetch } from '../../shared/http/fetch.ts'
import { createGotClient } from '../../shared/http/got-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { checkToken, type TokenFault } from '../../shared/oidc/check-token.ts'
import { createIssuerClient, type IssuerClient, type TokenSet } from '../../shared/oidc/issuer-client.ts'
import { createBearerVerifier } from '../../shared/oidc/verify-bearer.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { refusal, rejection } from './oidc-local-issuer.ts'

const STORAGE = 'https://localhost:1'
const SCOPES = ['storage.create:/ds', 'storage.read:/ds']

describe('the issuer client at the embedded issuer, over TLS', () => {
  let directory: string
  let sandbox: Sandbox
  let http: HttpClient
  let issuer: RunningIssuer | undefined

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'waybill-oidc-'))
    sandbox = await prepareSandbox({ dir: directory, portBase: 0 })
    const trust = createTrust({
      path: sandbox.authority.caFile,
      defaultRoots: false,
      clock: systemClock,
      log: silentLogger,
    })
    http = createGotClient({ trust })
  })
  afterEach(async () => {
    await issuer?.stop()
    issuer = undefined
  })
  after(async () => {
    http.close()
    await rm(directory, { recursive: true })
  })

  function client(name: 'server' | 'worker', authentication: 'basic' | 'post'): IssuerClient {
    const { id, secret } = sandbox.clients[name]
    return createIssuerClient({
      url: sandbox.issuer,
      clientId: id,
      clientSecret: secret,
      authentication,
      audienceParameter: 'audience',
      fetch: asFetch(http),
      clock: systemClock,
      timeoutMs: 10_000,
    })
  }

  const check = ({ accessToken }: TokenSet, scopes: readonly string[] = SCOPES): ReturnType<typeof checkToken> =>
    checkToken(accessToken, { issuer: sandbox.issuer, audience: STORAGE, scopes, now: systemClock.now() })

  for (const [algorithm, exchangeShape] of [
    ['ES256', 'access_token'],
    ['RS256', 'refresh_token'],
  ] as const) {
    it(`mints, exchanges, refreshes and revokes (${algorithm}, exchange gives the ${exchangeShape})`, async () => {
      issuer = await startIssuer(sandbox, { algorithm, exchangeShape, rotationGraceSeconds: 0 })
      const [server, worker] = [client('server', 'basic'), client('worker', 'post')]
      const minted = await server.mint({ audience: STORAGE, scopes: SCOPES })
      check(minted)
      const subjectToken = minted.accessToken
      const exchanged = await worker.exchange({ subjectToken, audience: STORAGE, scopes: SCOPES, offline: true })
      check(exchanged)
      const [subject, kept] = [minted, exchanged].map(({ accessToken }) => decodeJwt(accessToken.reveal()).sub)
      expect(kept, 'the subject is kept').to.equal(subject)
      const held = exchanged.refreshToken ?? expect.fail('no refresh token came')
      const refreshed = await worker.refresh({ refreshToken: held, scopes: ['storage.read:/ds'] })
      check(refreshed, ['storage.read:/ds'])
      const newest = refreshed.refreshToken ?? expect.fail('the embedded issuer rotates')
      await worker.revoke(newest)
      const refused = await rejection(worker.refresh({ refreshToken: newest, scopes: SCOPES }))
      expect(refused).to.include({ code: 'TOKEN_REFUSED', reason: 'invalid_grant' })
    })
  }

  it('finds every fault of a token that is not the one asked for', async () => {
    issuer = await startIssuer(sandbox)
    const server = client('server', 'basic')
    const faults: [kind: 'wider' | 'narrower' | 'opaque' | 'wrong-audience', code: TokenFault][] = [
      ['wider', 'TOKEN_WIDER'],
      ['narrower', 'TOKEN_NARROWER'],
      ['opaque', 'TOKEN_OPAQUE'],
      ['wrong-audience', 'TOKEN_AUDIENCE'],
    ]
    for (const [kind, code] of faults) {
      issuer.misbehave({ kind, times: 1 })
      const tokens = await server.mint({ audience: STORAGE, scopes: SCOPES })
      expect(refusal(() => check(tokens)).code).to.equal(code)
    }
  })

  it('verifies its tokens, and those of this audience only', async () => {
    issuer = await startIssuer(sandbox)
    const { accessToken } = await client('server', 'basic').mint({ audience: STORAGE, scopes: SCOPES })
    const verifierFor = (audience: string): ReturnType<typeof createBearerVerifier> =>
      createBearerVerifier({
        issuers: [{ url: sandbox.issuer, audience }],
        fetch: asFetch(http),
        clock: systemClock,
        timeoutMs: 10_000,
      })
    const authorization = `Bearer ${accessToken.reveal()}`
    const { id } = sandbox.clients.server
    expect(await verifierFor(STORAGE).verify(authorization)).to.include({ clientId: id, subject: id })
    expect((await rejection(verifierFor('https://waybill.example').verify(authorization))).code).to.equal(
      'TOKEN_AUDIENCE',
    )
  })

  it('is unreachable when nobody listens', async () => {
    const error = await rejection(client('server', 'basic').mint({ audience: STORAGE, scopes: SCOPES }))
    expect(error.code).to.equal('ISSUER_UNREACHABLE')
  })
})
