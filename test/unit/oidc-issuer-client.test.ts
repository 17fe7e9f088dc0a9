import { inspect } from 'node:util'
import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { createIssuerClient, type IssuerClient, type IssuerClientOptions } from '../../shared/oidc/issuer-client.ts'
import { IssuerError } from '../../shared/oidc/issuer-error.ts'
import { json, type LocalIssuer, ORIGIN, refusal, rejection, startLocalIssuer } from './oidc-local-issuer.ts'
import { type ManualClock, manualClock } from './oidc-manual-clock.ts'

const CLIENT_ID = '5b1f9a0e-77c3-4b62-9a3e-1d7c2f0a8e44'
const CLIENT_SECRET = 'client-s3cret+of/iam'
const STORAGE = 'https://storage.example'
const SCOPES = ['storage.read:/ds', 'storage.create:/ds']
const TYPE = 'urn:ietf:params:oauth:token-type:'
/** Shaped like tokens, so that a search for them means something. */
const SUBJECT_TOKEN = 'eyJhbGciOiJFUzI1NiJ9.c3ViamVjdA.c2lnbmF0dXJl'
const REFRESH_TOKEN = 'refresh-token-one'

describe('issuer client', () => {
  let issuer: LocalIssuer
  let clock: ManualClock
  let counted: string[]

  beforeEach(async () => {
    issuer = await startLocalIssuer('/vo/')
    clock = manualClock()
    counted = []
  })
  afterEach(() => issuer.stop())

  function client(options: Partial<IssuerClientOptions> = {}): IssuerClient {
    return createIssuerClient({
      url: `${ORIGIN}/vo/`,
      clientId: CLIENT_ID,
      clientSecret: new Secret(CLIENT_SECRET),
      authentication: 'basic',
      audienceParameter: 'audience',
      fetch: issuer.fetch,
      clock,
      timeoutMs: 10_000,
      onRequest: (grantType, outcome) => counted.push(`${grantType} ${outcome}`),
      ...options,
    })
  }

  /** Answers token requests in turn. */
  function tokenAnswers(...answers: object[]): void {
    issuer.on('/token', (_request, response) => json(response, answers.shift() ?? {}))
  }

  const tokenRequests = (): Record<string, string>[] =>
    issuer.seen.filter(({ path }) => path === '/token').map(({ form }) => form)

  const bearer = (token: string, more: object = {}): object => ({
    access_token: token,
    token_type: 'Bearer',
    expires_in: 3600,
    ...more,
  })

  describe('mint', () => {
    it('asks by client credentials for one audience and for sorted scopes', async () => {
      tokenAnswers(bearer('a.b.c'))
      const tokens = await client().mint({ audience: STORAGE, scopes: [...SCOPES, ...SCOPES] })
      expect(tokens.accessToken.reveal()).to.equal('a.b.c')
      expect(tokens.refreshToken).to.equal(undefined)
      expect(tokenRequests()).to.deep.equal([
        { grant_type: 'client_credentials', scope: 'storage.create:/ds storage.read:/ds', audience: STORAGE },
      ])
      expect(counted).to.deep.equal(['client_credentials ok'])
    })

    for (const audienceParameter of ['audience', 'resource', 'aud'] as const) {
      it(`names the audience \`${audienceParameter}\` if the issuer wants that`, async () => {
        tokenAnswers(bearer('a.b.c'))
        await client({ audienceParameter }).mint({ audience: STORAGE, scopes: SCOPES })
        expect(tokenRequests()[0]).to.have.property(audienceParameter, STORAGE)
      })
    }

    it('counts the life of a token from when it was asked for', async () => {
      const askedAt = clock.now()
      issuer.on('/token', (_request, response) => {
        clock.advance(5_000)
        json(response, bearer('a.b.c', { expires_in: 600 }))
      })
      const { expiresAt } = await client().mint({ audience: STORAGE, scopes: SCOPES })
      expect(expiresAt).to.equal(askedAt + 600_000)
    })

    it('takes the end from the token itself if that is earlier, or if the answer says nothing', async () => {
      const exp = clock.now() / 1000 + 60
      const token = await issuer.sign({ exp })
      tokenAnswers(bearer(token), bearer(token, { expires_in: undefined }), bearer(token, { expires_in: 30 }))
      const issuers = client()
      const ends = []
      for (let i = 0; i < 3; i++) ends.push((await issuers.mint({ audience: STORAGE, scopes: SCOPES })).expiresAt)
      expect(ends).to.deep.equal([exp * 1000, exp * 1000, clock.now() + 30_000])
    })

    it('never asks without a scope: IAM would give all of them (facts/tokens.md section 2)', async () => {
      expect((await rejection(client().mint({ audience: STORAGE, scopes: [] }))).code).to.equal('SCOPE_MISSING')
      expect((await rejection(client().mint({ audience: STORAGE, scopes: ['a b'] }))).code).to.equal('SCOPE_INVALID')
      expect(issuer.seen).to.deep.equal([])
    })
  })

  describe('client authentication', () => {
    it('by Basic, with a UUID as it is and the rest form-encoded', async () => {
      tokenAnswers(bearer('a.b.c'))
      await client().mint({ audience: STORAGE, scopes: SCOPES })
      const { authorization = '' } = issuer.seen.find(({ path }) => path === '/token') ?? {}
      const credentials = Buffer.from(authorization.replace('Basic ', ''), 'base64').toString()
      expect(credentials).to.equal(`${CLIENT_ID}:client-s3cret%2Bof%2Fiam`)
    })

    it('by post', async () => {
      tokenAnswers(bearer('a.b.c'))
      await client({ authentication: 'post' }).mint({ audience: STORAGE, scopes: SCOPES })
      expect(tokenRequests()[0]).to.include({ client_id: CLIENT_ID, client_secret: CLIENT_SECRET })
      expect(issuer.seen.every(({ authorization }) => authorization === undefined)).to.equal(true)
    })
  })

  describe('discovery', () => {
    for (const name of ['', '/vo', '/vo/']) {
      it(`finds an issuer called https://issuer.example${name}, once`, async () => {
        await issuer.stop()
        issuer = await startLocalIssuer(name)
        tokenAnswers(bearer('a.b.c'), bearer('a.b.c'))
        const named = client({ url: ORIGIN + name })
        expect(issuer.seen, 'nothing before the first verb').to.deep.equal([])
        await named.mint({ audience: STORAGE, scopes: SCOPES })
        await named.mint({ audience: STORAGE, scopes: SCOPES })
        expect(issuer.seen.map(({ path }) => path)).to.deep.equal([
          `${name.replace(/\/$/, '')}/.well-known/openid-configuration`,
          '/token',
          '/token',
        ])
      })
    }

    for (const [name, url] of [
      ['', `${ORIGIN}/`],
      ['/', ORIGIN],
      ['/vo/', `${ORIGIN}/vo`],
    ] as const) {
      it(`wants the name that the tokens will bear: https://issuer.example${name} is not ${url}`, async () => {
        await issuer.stop()
        issuer = await startLocalIssuer(name)
        const error = await rejection(client({ url }).mint({ audience: STORAGE, scopes: SCOPES }))
        expect(error.code).to.equal('ISSUER_NONSENSE')
        expect(tokenRequests()).to.deep.equal([])
      })
    }

    it('is tried again after a failure', async () => {
      let down = true
      tokenAnswers(bearer('a.b.c'))
      const fetch: IssuerClientOptions['fetch'] = (url, init) =>
        down ? Promise.reject(new TypeError('fetch failed')) : issuer.fetch(url, init)
      const again = client({ fetch })
      expect((await rejection(again.mint({ audience: STORAGE, scopes: SCOPES }))).code).to.equal('ISSUER_UNREACHABLE')
      down = false
      clock.advance(1_000)
      await again.mint({ audience: STORAGE, scopes: SCOPES })
      expect(counted).to.deep.equal(['client_credentials ISSUER_UNREACHABLE', 'client_credentials ok'])
    })

    for (const url of [
      'http://issuer.example',
      'https://',
      'https://u:p@issuer.example',
      'https://i.example/?x',
      'iam',
    ]) {
      it(`refuses ${url} for an issuer`, () => {
        const fetch = (): Promise<Response> => expect.fail('it was asked')
        expect(refusal(() => client({ url, fetch })).code).to.equal('ISSUER_URL_INVALID')
      })
    }

    it('refuses a token endpoint that is not https', async () => {
      const metadata = { issuer: `${ORIGIN}/vo/`, token_endpoint: 'http://issuer.example/token' }
      issuer.on('/vo/.well-known/openid-configuration', (_request, response) => json(response, metadata))
      const error = await rejection(client().mint({ audience: STORAGE, scopes: SCOPES }))
      expect(error.code).to.equal('ISSUER_NONSENSE')
    })
  })

  describe('exchange', () => {
    const request = { subjectToken: new Secret(SUBJECT_TOKEN), audience: STORAGE, scopes: SCOPES }

    it('asks as RFC 8693 has it, and takes an access token with a refresh token beside it', async () => {
      const issued_token_type = `${TYPE}jwt`
      tokenAnswers(bearer('a.b.c', { refresh_token: REFRESH_TOKEN, issued_token_type }))
      const tokens = await client().exchange({ ...request, offline: true })
      expect(tokens.accessToken.reveal()).to.equal('a.b.c')
      expect(tokens.refreshToken?.reveal()).to.equal(REFRESH_TOKEN)
      expect(tokenRequests()).to.deep.equal([
        {
          grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
          subject_token: SUBJECT_TOKEN,
          subject_token_type: `${TYPE}access_token`,
          requested_token_type: `${TYPE}refresh_token`,
          scope: 'storage.create:/ds storage.read:/ds offline_access',
          audience: STORAGE,
        },
      ])
    })

    it('without `offline` asks for an access token only', async () => {
      tokenAnswers(bearer('a.b.c', { issued_token_type: `${TYPE}access_token` }))
      const tokens = await client().exchange({ ...request, offline: false })
      expect(tokens.refreshToken).to.equal(undefined)
      const scope = 'storage.create:/ds storage.read:/ds'
      expect(tokenRequests()[0]).to.include({ requested_token_type: `${TYPE}access_token`, scope })
    })

    const inside = { access_token: REFRESH_TOKEN, issued_token_type: `${TYPE}refresh_token`, token_type: 'N_A' }

    it('refreshes at once when the refresh token came inside `access_token`', async () => {
      tokenAnswers(inside, bearer('a.b.c'))
      const tokens = await client().exchange({ ...request, offline: true })
      expect(tokens.accessToken.reveal()).to.equal('a.b.c')
      expect(tokens.refreshToken?.reveal()).to.equal(REFRESH_TOKEN)
      expect(tokenRequests()[1]).to.deep.equal({
        grant_type: 'refresh_token',
        refresh_token: REFRESH_TOKEN,
        scope: 'storage.create:/ds storage.read:/ds',
        audience: STORAGE,
      })
      expect(counted).to.deep.equal(['token_exchange ok', 'refresh_token ok'])
    })

    it('and keeps the newer refresh token if the issuer rotates', async () => {
      tokenAnswers({ ...inside, token_type: 'Bearer' }, bearer('a.b.c', { refresh_token: 'refresh-token-two' }))
      const tokens = await client().exchange({ ...request, offline: true })
      expect(tokens.refreshToken?.reveal()).to.equal('refresh-token-two')
    })

    it('refuses a type that was not asked for', async () => {
      tokenAnswers(bearer('a.b.c', { issued_token_type: `${TYPE}saml2` }))
      const error = await rejection(client().exchange({ ...request, offline: true }))
      expect(error.code).to.equal('ISSUER_NONSENSE')
      expect(counted).to.deep.equal(['token_exchange ISSUER_NONSENSE'])
    })

    it('refuses a token that is no bearer token', async () => {
      tokenAnswers({ ...inside, expires_in: 60, issued_token_type: `${TYPE}access_token` })
      expect((await rejection(client().exchange({ ...request, offline: true }))).code).to.equal('ISSUER_NONSENSE')
    })
  })

  describe('refresh', () => {
    const request = { refreshToken: new Secret(REFRESH_TOKEN), scopes: ['storage.read:/ds'] }

    it('returns the new refresh token of an issuer that rotates', async () => {
      tokenAnswers(bearer('a.b.c', { refresh_token: 'refresh-token-two' }))
      const tokens = await client().refresh(request)
      expect(tokens.refreshToken?.reveal()).to.equal('refresh-token-two')
      expect(tokenRequests()).to.deep.equal([
        { grant_type: 'refresh_token', refresh_token: REFRESH_TOKEN, scope: 'storage.read:/ds' },
      ])
    })

    it('returns none of one that does not', async () => {
      tokenAnswers(bearer('a.b.c'))
      expect((await client().refresh(request)).refreshToken).to.equal(undefined)
    })
  })

  describe('revoke', () => {
    it('revokes a refresh token (RFC 7009)', async () => {
      issuer.on('/revoke', (_request, response) => void response.writeHead(200).end())
      await client().revoke(new Secret(REFRESH_TOKEN))
      expect(issuer.seen.at(-1)?.form).to.deep.equal({ token: REFRESH_TOKEN, token_type_hint: 'refresh_token' })
      expect(counted).to.deep.equal(['revocation ok'])
    })

    it('says so when the issuer offers no revocation', async () => {
      const metadata = { issuer: `${ORIGIN}/vo/`, token_endpoint: `${ORIGIN}/token` }
      issuer.on('/vo/.well-known/openid-configuration', (_request, response) => json(response, metadata))
      expect((await rejection(client().revoke(new Secret(REFRESH_TOKEN)))).code).to.equal('ISSUER_NONSENSE')
    })
  })

  describe('an issuer in trouble', () => {
    const html = '<html><body>Welcome</body></html>'
    const jsonType = { 'content-type': 'application/json' }
    const later = { date: 'Sun, 22 Nov 2026 12:00:00 GMT', 'retry-after': 'Sun, 22 Nov 2026 12:01:30 GMT' }
    const refused = (error: string, error_description?: string): string => JSON.stringify({ error, error_description })
    const cases: [what: string, status: number, headers: object, body: string, code: string, more?: object][] = [
      ['429 with Retry-After', 429, { 'retry-after': '7' }, '', 'ISSUER_BUSY', { retryAfterSeconds: 7 }],
      ['429 with a date', 429, later, '', 'ISSUER_BUSY', { retryAfterSeconds: 90 }],
      ['429 with nonsense', 429, { 'retry-after': 'soon' }, '', 'ISSUER_BUSY', { retryAfterSeconds: undefined }],
      ['503 for a century', 503, { 'retry-after': '999999999' }, '', 'ISSUER_BUSY', { retryAfterSeconds: 86_400 }],
      ['500', 500, {}, refused('server_error'), 'ISSUER_UNREACHABLE'],
      ['502 from its proxy', 502, {}, html, 'ISSUER_UNREACHABLE'],
      [
        '400 invalid_scope',
        400,
        jsonType,
        refused('invalid_scope', 'no'),
        'TOKEN_REFUSED',
        { reason: 'invalid_scope' },
      ],
      ['403 access_denied', 403, jsonType, refused('access_denied'), 'TOKEN_REFUSED', { reason: 'access_denied' }],
      [
        '401 invalid_client behind a challenge',
        401,
        { ...jsonType, 'www-authenticate': 'Basic realm="iam"' },
        refused('invalid_client'),
        'TOKEN_REFUSED',
        { reason: 'invalid_client' },
      ],
      ['401 without a reason', 401, {}, html, 'TOKEN_REFUSED', { reason: 'invalid_client' }],
      ['404', 404, {}, html, 'ISSUER_NONSENSE'],
      ['a redirect', 302, { location: 'https://elsewhere.example/' }, '', 'ISSUER_NONSENSE'],
      ['a page instead of a token', 200, { 'content-type': 'text/html' }, html, 'ISSUER_NONSENSE'],
      ['half an answer', 200, jsonType, '{"access_token": "a.b.', 'ISSUER_NONSENSE'],
      ['a list', 200, jsonType, '[]', 'ISSUER_NONSENSE'],
      ['no token', 200, jsonType, '{"token_type": "Bearer"}', 'ISSUER_NONSENSE'],
      [
        'another kind of token',
        200,
        jsonType,
        '{"access_token": "x", "token_type": "mac", "expires_in": 60}',
        'ISSUER_NONSENSE',
      ],
      [
        'a DPoP token',
        200,
        jsonType,
        '{"access_token": "x", "token_type": "DPoP", "expires_in": 60}',
        'ISSUER_NONSENSE',
      ],
      ['a token without end', 200, jsonType, '{"access_token": "x", "token_type": "Bearer"}', 'ISSUER_NONSENSE'],
      [
        'a token for ever',
        200,
        jsonType,
        '{"access_token": "x", "token_type": "Bearer", "expires_in": 1e300}',
        'ISSUER_NONSENSE',
      ],
      [
        'a token with a line break',
        200,
        jsonType,
        '{"access_token": "x\\r\\ny", "token_type": "Bearer", "expires_in": 60}',
        'ISSUER_NONSENSE',
      ],
      ['too much', 200, jsonType, JSON.stringify(bearer('x', { more: ' '.repeat(1_048_576) })), 'ISSUER_NONSENSE'],
    ]
    for (const [what, status, headers, body, code, more = {}] of cases) {
      it(`${what}: ${code}`, async () => {
        issuer.on('/token', (_request, response) => void response.writeHead(status, { ...headers }).end(body))
        const error = await rejection(client().mint({ audience: STORAGE, scopes: SCOPES }))
        expect(error).to.be.instanceOf(IssuerError)
        expect(error).to.deep.include({ code, ...more })
        expect(counted).to.deep.equal([`client_credentials ${code}`])
      })
    }

    it('a broken connection: ISSUER_UNREACHABLE', async () => {
      issuer.on('/token', (_request, response) => void response.destroy())
      const error = await rejection(client().mint({ audience: STORAGE, scopes: SCOPES }))
      expect(error.code).to.equal('ISSUER_UNREACHABLE')
    })

    for (const part of ['no answer', 'an answer that never ends']) {
      it(`${part}: ISSUER_UNREACHABLE at the deadline, and the connection is closed`, async () => {
        const closed = new Promise<void>(resolve => {
          issuer.on('/token', (_request, response) => {
            response.on('close', resolve)
            if (part !== 'no answer') response.writeHead(200, jsonType).write('{')
            clock.advance(10_000)
          })
        })
        const error = await rejection(client().mint({ audience: STORAGE, scopes: SCOPES }))
        expect(error.code).to.equal('ISSUER_UNREACHABLE')
        await closed
      })
    }

    const foreign = 'eyJhbGciOiJub25lIn0.eyJmb3JlaWduIjoxfQ.'
    const verbs: [verb: string, sent: string, work: (client: IssuerClient) => Promise<unknown>][] = [
      ['mint', foreign, ({ mint }) => mint({ audience: STORAGE, scopes: SCOPES })],
      ['refresh', REFRESH_TOKEN, ({ refresh }) => refresh({ refreshToken: new Secret(REFRESH_TOKEN), scopes: SCOPES })],
      [
        'exchange',
        SUBJECT_TOKEN,
        ({ exchange }) =>
          exchange({ subjectToken: new Secret(SUBJECT_TOKEN), audience: STORAGE, scopes: SCOPES, offline: true }),
      ],
    ]
    for (const [verb, sent, work] of verbs) {
      it(`${verb} repeats no secret in an error, whatever the issuer repeats`, async () => {
        const secrets = [sent, CLIENT_SECRET, foreign]
        const words = `Invalid token: ${secrets.join(' and ')}\n\u001b[31m${'x '.repeat(5000)}`
        const inside = JSON.stringify({ access_token: sent, refresh_token: 7, more: secrets })
        const answers: [number, string][] = [
          [400, refused('invalid_grant', words)],
          [400, refused(words)],
          [500, refused(words)],
          [200, inside],
        ]
        for (const [status, body] of answers) {
          issuer.on('/token', (_request, response) => void response.writeHead(status, jsonType).end(body))
          const error = await rejection(work(client()))
          const printed = `${inspect(error, { depth: 10, showHidden: true })} ${JSON.stringify(error)} ${error.message}`
          for (const secret of secrets) expect(printed).not.to.include(secret)
          expect(error.message).to.match(/^[\x20-\x7e]{1,900}$/)
        }
      })
    }
  })
})
