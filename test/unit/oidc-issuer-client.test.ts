import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { createIssuerClient, type IssuerClient, type IssuerClientOptions } from '../../shared/oidc/issuer-client.ts'
import { json, type LocalIssuer, ORIGIN, refusal, rejection, startLocalIssuer } from './oidc-local-issuer.ts'
import { type ManualClock, manualClock } from './oidc-manual-clock.ts'

const CLIENT_ID = '5b1f9a0e-77c3-4b62-9a3e-1d7c2f0a8e44'
const CLIENT_SECRET = 'client-s3cret+of/iam'
const STORAGE = 'https://storage.example'
const SCOPES = ['storage.read:/ds', 'storage.create:/ds']
const TYPE = 'urn:ietf:params:oauth:token-type:'
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

  describe('with metadata that come slowly', () => {
    beforeEach(() => {
      issuer.on('/vo/.well-known/openid-configuration', (_request, response) => {
        clock.advance(9_000)
        json(response, { issuer: `${ORIGIN}/vo/`, token_endpoint: `${ORIGIN}/token` })
      })
    })

    for (const [verb, ask] of [
      ['refresh', (sendBy: number) => ({ refreshToken: new Secret(REFRESH_TOKEN), scopes: SCOPES, sendBy })],
      [
        'exchange',
        (sendBy: number) => ({ subjectToken: new Secret(SUBJECT_TOKEN), scopes: SCOPES, offline: true, sendBy }),
      ],
    ] as const) {
      it(`sends no ${verb} when its time has passed meanwhile`, async () => {
        tokenAnswers(bearer('a.b.c'), bearer('a.b.c'))
        const asking = client()
        const by = (sendBy: number): Promise<unknown> => {
          const request = { audience: STORAGE, ...ask(sendBy) }
          return 'refreshToken' in request ? asking.refresh(request) : asking.exchange(request)
        }
        expect((await rejection(by(clock.monotonic() + 9_000))).code).to.equal('ISSUER_UNREACHABLE')
        expect(tokenRequests()).to.deep.equal([])
        await by(clock.monotonic() + 1)
        expect(tokenRequests()).to.have.length(1)
      })
    }

    it('loads them ahead when told to', async () => {
      const asking = client()
      await asking.discover()
      tokenAnswers(bearer('a.b.c'))
      const sendBy = clock.monotonic() + 1
      await asking.refresh({ refreshToken: new Secret(REFRESH_TOKEN), scopes: SCOPES, sendBy })
      expect(tokenRequests()).to.have.length(1)
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
})
