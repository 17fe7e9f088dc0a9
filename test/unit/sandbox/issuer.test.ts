import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, type JWTPayload, jwtVerify } from 'jose'
import type { ClientName } from '../../../sandbox/issuer/clients.ts'
import { type RunningIssuer, type StartIssuerOptions, startIssuer } from '../../../sandbox/main.ts'
import { silentLogger } from '../../../shared/runtime/logger.ts'
import { systemRandom } from '../../../shared/runtime/random.ts'
import { type ManualClock, manualClock } from '../oidc-manual-clock.ts'
import { Fixture } from './fixture.ts'

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const TYPE = 'urn:ietf:params:oauth:token-type:'
const ANY = 'https://wlcg.cern.ch/jwt/v1/any'
const SE = 'https://se.example.org'

describe('the embedded issuer', () => {
  let fixture: Fixture
  let issuer: RunningIssuer
  let clock: ManualClock

  const start = async (options: StartIssuerOptions = {}): Promise<void> => {
    issuer = await startIssuer(fixture.sandbox, options, { clock, random: systemRandom, log: silentLogger })
  }
  const restart = async (options: StartIssuerOptions = {}): Promise<void> => {
    await issuer.stop()
    await start(options)
  }

  beforeEach(async () => {
    fixture = await Fixture.create()
    clock = manualClock()
    await start()
  })
  afterEach(async () => {
    await issuer.stop()
    await fixture.remove()
  })

  interface Answer {
    readonly status: number
    readonly body: Record<string, unknown>
    readonly headers: Readonly<Record<string, string>>
    /** Of the access token. */
    readonly claims: JWTPayload
  }

  async function request(client: ClientName, fields: Record<string, string>, path = '/token'): Promise<Answer> {
    const { status, text, headers } = await fixture.form(path, client, fields)
    const body = text === '' ? {} : JSON.parse(text)
    const token = String(body.access_token)
    return { status, headers, body, claims: token.split('.').length === 3 ? decodeJwt(token) : {} }
  }

  const mint = (scope: string, more: Record<string, string> = {}) =>
    request('server', { grant_type: 'client_credentials', scope, audience: SE, ...more })
  const exchange = (subject: Answer, scope: string, more: Record<string, string> = {}) =>
    request('worker', {
      grant_type: EXCHANGE,
      subject_token: String(subject.body.access_token),
      subject_token_type: `${TYPE}access_token`,
      scope,
      ...more,
    })
  const refresh = (token: unknown, more: Record<string, string> = {}) =>
    request('worker', { grant_type: 'refresh_token', refresh_token: String(token), ...more })
  const introspect = (token: unknown) => request('server', { token: String(token) }, '/introspect')

  const refused = (answer: Answer, status: number, error: string): void => {
    expect(answer.body, JSON.stringify(answer.body)).to.include({ error })
    expect(answer.status).to.equal(status)
    expect(answer.body.error_description).to.be.a('string')
  }

  describe('describes itself', () => {
    for (const path of [
      '/.well-known/openid-configuration',
      '//.well-known/openid-configuration',
      '/.well-known/oauth-authorization-server',
    ]) {
      it(`at ${path}`, async () => {
        const { status, text } = await fixture.call('GET', `${fixture.sandbox.issuer}${path}`)
        expect(status).to.equal(200)
        expect(JSON.parse(text)).to.include({
          issuer: fixture.sandbox.issuer,
          token_endpoint: `${fixture.sandbox.issuer}/token`,
          jwks_uri: `${fixture.sandbox.issuer}/jwks`,
        })
      })
    }

    for (const algorithm of ['ES256', 'RS256'] as const) {
      it(`with public keys only, by which its ${algorithm} tokens verify`, async () => {
        await restart({ algorithm })
        const jwks = JSON.parse((await fixture.call('GET', `${fixture.sandbox.issuer}/jwks`)).text)
        for (const key of jwks.keys) expect(key).to.not.have.any.keys('d', 'p', 'q', 'dp', 'dq', 'qi', 'k')
        const token = String((await mint('storage.read:/a')).body.access_token)
        expect(decodeProtectedHeader(token)).to.include({ alg: algorithm, kid: jwks.keys[0].kid })
        const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), { currentDate: new Date(clock.now()) })
        expect(payload.iss).to.equal(fixture.sandbox.issuer)
      })
    }
  })

  describe('mints for client credentials', () => {
    it('a token with all claims of the profile and nothing that was not asked for', async () => {
      const { status, body, claims, headers } = await mint('storage.read:/a storage.create:/a')
      expect(status).to.equal(200)
      expect(headers['cache-control']).to.equal('no-store')
      expect(body).to.include({ token_type: 'Bearer', expires_in: 3600, scope: 'storage.read:/a storage.create:/a' })
      expect(body).to.not.have.property('refresh_token')
      const now = Math.floor(clock.now() / 1000)
      expect(claims).to.deep.include({
        sub: 'waybill-server',
        client_id: 'waybill-server',
        iss: fixture.sandbox.issuer,
        aud: SE,
        iat: now,
        nbf: now,
        exp: now + 3600,
        scope: 'storage.read:/a storage.create:/a',
        'wlcg.ver': '1.0',
      })
      expect(claims.jti).to.be.a('string')
    })

    for (const [parameter, value, aud] of [
      ['audience', SE, SE],
      ['aud', SE, SE],
      ['resource', SE, SE],
      ['audience', `${SE} https://b.example.org`, [SE, 'https://b.example.org']],
      ['audience', '', ANY],
    ] as const) {
      it(`the audience of ${parameter}="${value}"`, async () => {
        const fields = { grant_type: 'client_credentials', scope: 'storage.read:/a', [parameter]: value }
        expect((await request('server', fields)).claims.aud).to.deep.equal(aud)
      })
    }

    it('all its scopes to a client that names none, as INDIGO IAM does', async () => {
      const { claims } = await request('server', { grant_type: 'client_credentials' })
      expect(claims.scope).to.equal('storage.read:/ storage.create:/ storage.modify:/ storage.stage:/')
    })

    it('the scope wlcg, which names the profile, to every client', async () => {
      for (const client of ['server', 'worker', 'manager'] as const) {
        const { claims } = await request(client, { grant_type: 'client_credentials', scope: 'wlcg' })
        expect(claims.scope).to.equal('wlcg')
      }
    })

    it('an API token without any scope for the worker and for people', async () => {
      for (const client of ['worker', 'manager'] as const) {
        const { claims } = await request(client, { grant_type: 'client_credentials', audience: 'https://waybill' })
        expect(claims)
          .to.include({ sub: `waybill-${client}`, aud: 'https://waybill' })
          .and.not.have.property('scope')
      }
    })

    for (const scope of [
      'storage.read',
      'storage.read:',
      'storage.read:/a/../b',
      'storage.read:/%2e%2e',
      'openid',
      'storage.x:/',
    ])
      it(`nothing for the scope ${scope}`, async () => refused(await mint(scope), 400, 'invalid_scope'))

    for (const client of ['worker', 'manager'] as const)
      it(`no storage scope for the client ${client}`, async () => {
        const fields = { grant_type: 'client_credentials', scope: 'storage.read:/a' }
        refused(await request(client, fields), 400, 'invalid_scope')
      })
  })

  describe('authenticates clients', () => {
    const post = (fields: Record<string, string>, headers: Record<string, string> = {}) =>
      fixture.call('POST', `${fixture.sandbox.issuer}/token`, {
        headers: { 'Content-Type': 'application/x-www-form-urlencoded', ...headers },
        body: new URLSearchParams({ grant_type: 'client_credentials', ...fields }).toString(),
      })

    it('by Basic and by the form, and not by both at once', async () => {
      const { id, secret } = fixture.sandbox.clients.server
      const fields = { client_id: id, client_secret: secret.reveal() }
      const basic = `Basic ${Buffer.from(`${id}:${secret.reveal()}`).toString('base64')}`
      expect((await post({}, { Authorization: basic })).status).to.equal(200)
      expect((await post(fields)).status).to.equal(200)
      const both = await post(fields, { Authorization: basic })
      expect(both.status).to.equal(400)
      expect(JSON.parse(both.text).error).to.equal('invalid_request')
    })

    it('and refuses wrong ones with 401', async () => {
      for (const fields of [{}, { client_id: 'waybill-server' }, { client_id: 'waybill-server', client_secret: 'x' }]) {
        const { status, text, headers } = await post(fields)
        expect(status).to.equal(401)
        expect(JSON.parse(text).error).to.equal('invalid_client')
        expect(headers['www-authenticate']).to.match(/^Basic/)
      }
    })

    it('and grants none what it is not registered for', async () => {
      const subject = await mint('storage.read:/a')
      const fields = {
        grant_type: EXCHANGE,
        subject_token: String(subject.body.access_token),
        scope: 'storage.read:/a',
      }
      refused(await request('server', fields), 400, 'unauthorized_client')
    })
  })

  it('answers malformed requests in the words of RFC 6749 section 5.2', async () => {
    refused(await request('server', {}), 400, 'invalid_request')
    refused(await request('server', { grant_type: 'password' }), 400, 'unsupported_grant_type')
    refused(await request('worker', { grant_type: 'refresh_token' }), 400, 'invalid_request')
    const json = await fixture.call('POST', `${fixture.sandbox.issuer}/token`, {
      headers: { 'Content-Type': 'application/json' },
      body: '{}',
    })
    expect(json.status).to.equal(400)
    expect((await fixture.call('GET', `${fixture.sandbox.issuer}/nowhere`)).status).to.equal(404)
  })

  describe('exchanges tokens', () => {
    it('keeping subject, audience and scopes, with a refresh token for offline_access', async () => {
      const subject = await mint('storage.read:/a')
      const { body, claims } = await exchange(subject, 'storage.read:/a offline_access')
      expect(body.issued_token_type).to.equal(`${TYPE}access_token`)
      expect(body.refresh_token).to.be.a('string')
      expect(claims).to.include({
        sub: 'waybill-server',
        client_id: 'waybill-worker',
        aud: SE,
        scope: 'storage.read:/a',
      })
      expect(claims.jti).to.not.equal(subject.claims.jti)
    })

    it('without a refresh token when offline_access is not asked for', async () => {
      const { body } = await exchange(await mint('storage.read:/a'), 'storage.read:/a')
      expect(body).to.not.have.property('refresh_token')
    })

    it('into narrower scopes and audiences', async () => {
      const subject = await mint('storage.read:/a', { audience: `${SE} https://b.example.org` })
      const { claims } = await exchange(subject, 'storage.read:/a/b', { audience: SE })
      expect(claims).to.include({ scope: 'storage.read:/a/b', aud: SE })
    })

    it('into any audience when the subject token is good for all', async () => {
      const subject = await mint('storage.read:/a', { audience: '' })
      expect((await exchange(subject, 'storage.read:/a', { audience: SE })).claims.aud).to.equal(SE)
    })

    it('with the actor client`s lifetime, not the subject token`s', async () => {
      const subject = await mint('storage.read:/a')
      clock.advance(3_000_000)
      const { claims } = await exchange(subject, 'storage.read:/a')
      expect(claims.exp).to.equal(Math.floor(clock.now() / 1000) + 3600)
    })

    it('with the refresh token inside access_token, if that is its shape', async () => {
      await restart({ exchangeShape: 'refresh_token' })
      const { body } = await exchange(await mint('storage.read:/a'), 'storage.read:/a offline_access')
      expect(body).to.include({ issued_token_type: `${TYPE}refresh_token`, token_type: 'N_A' })
      const refreshed = await refresh(body.access_token)
      expect(refreshed.claims).to.include({ sub: 'waybill-server', scope: 'storage.read:/a', aud: SE })
    })

    const refusals: [why: string, scope: string, more: Record<string, string>, status: number, error: string][] = [
      ['without a scope', '', {}, 400, 'invalid_request'],
      ['into a wider path', 'storage.read:/', {}, 400, 'invalid_scope'],
      ['into a sibling path', 'storage.read:/ab', {}, 400, 'invalid_scope'],
      ['into another verb', 'storage.modify:/a', {}, 400, 'invalid_scope'],
      ['into another audience', 'storage.read:/a', { audience: 'https://b.example.org' }, 400, 'invalid_target'],
      ['of another type', 'storage.read:/a', { subject_token_type: `${TYPE}saml2` }, 400, 'invalid_request'],
      ['of another issuer', 'storage.read:/a', { subject_token: 'eyJhbGciOiJub25lIn0.e30.' }, 400, 'invalid_grant'],
    ]
    for (const [why, scope, more, status, error] of refusals)
      it(`never ${why}`, async () => refused(await exchange(await mint('storage.read:/a'), scope, more), status, error))

    it('never after the subject token has expired or was revoked', async () => {
      const [revoked, expired] = [await mint('storage.read:/a'), await mint('storage.read:/a')]
      await request('server', { token: String(revoked.body.access_token) }, '/revoke')
      refused(await exchange(revoked, 'storage.read:/a'), 400, 'invalid_grant')
      clock.advance(3_600_000)
      refused(await exchange(expired, 'storage.read:/a'), 400, 'invalid_grant')
    })

    it('never one`s own into a refresh token', async () => {
      const own = await exchange(await mint('storage.read:/a'), 'storage.read:/a')
      refused(await exchange(own, 'storage.read:/a offline_access'), 403, 'access_denied')
    })
  })

  describe('refreshes', () => {
    let first: Answer
    beforeEach(async () => {
      first = await exchange(await mint('storage.read:/a'), 'storage.read:/a offline_access')
    })

    it('with rotation, the old refresh token surviving the grace only', async () => {
      const second = await refresh(first.body.refresh_token)
      expect(second.claims).to.include({ sub: 'waybill-server', aud: SE, scope: 'storage.read:/a' })
      expect(second.body.refresh_token).to.be.a('string').and.not.equal(first.body.refresh_token)
      clock.advance(59_000)
      expect((await refresh(first.body.refresh_token)).status).to.equal(200)
      clock.advance(2_000)
      refused(await refresh(first.body.refresh_token), 400, 'invalid_grant')
    })

    it('no more of a family whose retired token is used after the grace (RFC 9700 section 4.14.2)', async () => {
      const second = await refresh(first.body.refresh_token)
      clock.advance(61_000)
      await refresh(first.body.refresh_token)
      refused(await refresh(second.body.refresh_token), 400, 'invalid_grant')
    })

    it('into narrower scopes, the next refresh token still good for all', async () => {
      const narrow = await refresh(first.body.refresh_token, { scope: 'storage.read:/a/b' })
      expect(narrow.claims.scope).to.equal('storage.read:/a/b')
      expect((await refresh(narrow.body.refresh_token)).claims.scope).to.equal('storage.read:/a')
    })

    it('never into wider ones, which does not use the token up', async () => {
      refused(await refresh(first.body.refresh_token, { scope: 'storage.read:/' }), 400, 'invalid_scope')
      expect((await refresh(first.body.refresh_token)).status).to.equal(200)
    })

    it('not with what is no refresh token, was revoked or has expired', async () => {
      refused(await refresh('nonsense'), 400, 'invalid_grant')
      const second = await refresh(first.body.refresh_token)
      expect((await request('worker', { token: String(second.body.refresh_token) }, '/revoke')).status).to.equal(200)
      refused(await refresh(second.body.refresh_token), 400, 'invalid_grant')
      refused(await refresh(first.body.refresh_token), 400, 'invalid_grant')
      const other = await exchange(await mint('storage.read:/a'), 'storage.read:/a offline_access')
      clock.advance(31 * 24 * 3_600_000)
      refused(await refresh(other.body.refresh_token), 400, 'invalid_grant')
    })

    it('after a restart with the same key, from a file that holds hashes only', async () => {
      await refresh(first.body.refresh_token)
      await restart()
      const again = await refresh(first.body.refresh_token)
      expect(again.status).to.equal(200)
      expect((await introspect(first.body.access_token)).body.active).to.equal(true)
      const directory = join(fixture.sandbox.directory, 'issuer')
      for (const name of await readdir(directory)) {
        expect((await stat(join(directory, name))).mode & 0o777, name).to.equal(0o600)
        const text = await readFile(join(directory, name), 'utf8')
        expect(text).to.not.include(String(first.body.refresh_token)).and.not.include(String(again.body.refresh_token))
      }
    })
  })

  describe('tells of tokens and takes them back', () => {
    it('active with their claims until they expire', async () => {
      const { body } = await mint('storage.read:/a')
      expect((await introspect(body.access_token)).body).to.include({ active: true, aud: SE, scope: 'storage.read:/a' })
      clock.advance(3_600_000)
      expect((await introspect(body.access_token)).body).to.deep.equal({ active: false })
      expect((await introspect('nonsense')).body).to.deep.equal({ active: false })
    })

    it('refresh tokens too', async () => {
      const { body } = await exchange(await mint('storage.read:/a'), 'storage.read:/a offline_access')
      const told = (await introspect(body.refresh_token)).body
      expect(told).to.include({ active: true, client_id: 'waybill-worker', sub: 'waybill-server' })
    })

    it('but only for the client they were issued to', async () => {
      const { body } = await exchange(await mint('storage.read:/a'), 'storage.read:/a offline_access')
      for (const token of [body.access_token, body.refresh_token]) {
        refused(await request('server', { token: String(token) }, '/revoke'), 400, 'unauthorized_client')
        expect((await introspect(token)).body.active).to.equal(true)
      }
    })

    it('and says 200 to unknown ones (RFC 7009 section 2.2)', async () => {
      expect((await request('server', { token: 'nonsense' }, '/revoke')).status).to.equal(200)
    })
  })

  describe('for tests', () => {
    it('counts requests by grant type', async () => {
      const subject = await mint('storage.read:/a')
      const { body } = await exchange(subject, 'storage.read:/a offline_access')
      await refresh(body.refresh_token)
      await refresh('nonsense')
      expect(Object.fromEntries(issuer.requests)).to.deep.equal({
        client_credentials: 1,
        [EXCHANGE]: 1,
        refresh_token: 2,
      })
    })

    it('gives tokens that live 10 s', async () => {
      await restart({ tokenLifetime: 10 })
      expect((await mint('storage.read:/a')).body.expires_in).to.equal(10)
    })

    it('misbehaves when told so', async () => {
      issuer.misbehave({ kind: 'wider' })
      expect((await mint('storage.read:/a')).claims.scope).to.equal('storage.read:/a storage.modify:/')
      issuer.misbehave({ kind: 'narrower' })
      expect((await mint('storage.read:/a storage.create:/a')).claims.scope).to.equal('storage.create:/a')
      issuer.misbehave({ kind: 'wrong-audience' })
      expect((await mint('storage.read:/a')).claims.aud).to.equal('https://elsewhere.example.org')
      issuer.misbehave({ kind: 'opaque' })
      expect((await mint('storage.read:/a')).body.access_token).to.match(/^[0-9a-f]{48}$/)
    })

    it('fails as often, and for the grant, as it was told', async () => {
      issuer.misbehave({ kind: 'status', status: 429, retryAfterSeconds: 7, times: 1, grantType: EXCHANGE })
      const subject = await mint('storage.read:/a')
      const busy = await exchange(subject, 'storage.read:/a')
      expect(busy.status).to.equal(429)
      expect(busy.headers['retry-after']).to.equal('7')
      expect((await exchange(subject, 'storage.read:/a')).status).to.equal(200)
    })
  })
})
