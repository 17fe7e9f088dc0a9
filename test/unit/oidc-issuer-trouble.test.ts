import { inspect } from 'node:util'
import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { createIssuerClient, type IssuerClient } from '../../shared/oidc/issuer-client.ts'
import { IssuerError } from '../../shared/oidc/issuer-error.ts'
import { type LocalIssuer, ORIGIN, rejection, startLocalIssuer } from './oidc-local-issuer.ts'
import { type ManualClock, manualClock } from './oidc-manual-clock.ts'

const CLIENT_SECRET = 'client-s3cret+of/iam'
const STORAGE = 'https://storage.example'
const SCOPES = ['storage.read:/ds', 'storage.create:/ds']
/** Shaped like tokens, so that a search for them means something. */
const SUBJECT_TOKEN = 'eyJhbGciOiJFUzI1NiJ9.c3ViamVjdA.c2lnbmF0dXJl'
const REFRESH_TOKEN = 'refresh-token-one'

describe('an issuer in trouble', () => {
  let issuer: LocalIssuer
  let clock: ManualClock
  let counted: string[]

  beforeEach(async () => {
    issuer = await startLocalIssuer()
    clock = manualClock()
    counted = []
  })
  afterEach(() => issuer.stop())

  const client = (): IssuerClient =>
    createIssuerClient({
      url: ORIGIN,
      clientId: 'waybill',
      clientSecret: new Secret(CLIENT_SECRET),
      authentication: 'post',
      audienceParameter: 'audience',
      fetch: issuer.fetch,
      clock,
      timeoutMs: 10_000,
      onRequest: (grantType, outcome) => counted.push(`${grantType} ${outcome}`),
    })

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
    ['400 invalid_scope', 400, jsonType, refused('invalid_scope', 'no'), 'TOKEN_REFUSED', { reason: 'invalid_scope' }],
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
    ['a DPoP token', 200, jsonType, '{"access_token": "x", "token_type": "DPoP", "expires_in": 60}', 'ISSUER_NONSENSE'],
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
    [
      'too much',
      200,
      jsonType,
      JSON.stringify({ access_token: 'x', token_type: 'Bearer', expires_in: 60, more: ' '.repeat(1_048_576) }),
      'ISSUER_NONSENSE',
    ],
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
