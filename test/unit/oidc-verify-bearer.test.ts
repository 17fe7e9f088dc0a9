import { createHmac } from 'node:crypto'
import { inspect } from 'node:util'
import { expect } from 'chai'
import { exportSPKI, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose'
import { type BearerVerifier, createBearerVerifier } from '../../shared/oidc/verify-bearer.ts'
import { json, type LocalIssuer, ORIGIN, rejection, startLocalIssuer } from './oidc-local-issuer.ts'
import { type ManualClock, manualClock } from './oidc-manual-clock.ts'

type Claims = Record<string, unknown>

const AUDIENCE = 'https://waybill.example'

describe('bearer verification', () => {
  let issuer: LocalIssuer
  let clock: ManualClock
  let verifier: BearerVerifier
  let good: Claims

  beforeEach(async () => {
    issuer = await startLocalIssuer()
    clock = manualClock()
    const issuers = [{ url: ORIGIN, audience: AUDIENCE }]
    verifier = createBearerVerifier({ issuers, fetch: issuer.fetch, clock, timeoutMs: 10_000, cacheSize: 2 })
    const now = clock.now() / 1000
    good = { iss: ORIGIN, aud: AUDIENCE, sub: 'jdoe', jti: 'j1', iat: now, exp: now + 600, scope: 'openid profile' }
  })
  afterEach(() => issuer.stop())

  const codeOf = async (authorization: string | undefined): Promise<[string, number]> => {
    const { code, status } = await rejection(verifier.verify(authorization))
    return [code, status]
  }

  it('says who calls', async () => {
    const claims = {
      ...good,
      'wlcg.ver': '1.0',
      'wlcg.groups': ['/cms', '/cms/prod', 7],
      client_id: 'laptop',
      azp: 'x',
    }
    expect(await verifier.verify(`Bearer ${await issuer.sign(claims)}`)).to.deep.equal({
      issuer: ORIGIN,
      subject: 'jdoe',
      clientId: 'laptop',
      groups: ['/cms', '/cms/prod'],
      entitlements: [],
      scopes: ['openid', 'profile'],
      expiresAt: clock.now() + 600_000,
    })
  })

  it('takes `azp` for the client when there is no `client_id`, and does without either', async () => {
    expect(await verifier.verify(`bearer ${await issuer.sign({ ...good, azp: 'web' })}`)).to.include({
      clientId: 'web',
    })
    const bare: Claims = { ...good, scope: undefined, jti: undefined }
    expect(await verifier.verify(`BEARER  ${await issuer.sign(bare)}`)).to.include({ clientId: undefined })
  })

  it('says the groups and entitlements of WLCG, Keycloak and EGI Check-in, in their order, and bounded', async () => {
    const said = async (more: Claims) => {
      const { groups, entitlements } = await verifier.verify(`Bearer ${await issuer.sign({ ...good, ...more })}`)
      return { groups, entitlements }
    }
    expect(await said({ 'wlcg.groups': ['/b', '/a'], groups: ['/a', 'c'] })).to.deep.equal({
      groups: ['/b', '/a', 'c'],
      entitlements: [],
    })
    expect(await said({ eduperson_entitlement: 'urn:one', entitlements: ['urn:two', { urn: 3 }, null] })).to.deep.equal(
      {
        groups: [],
        entitlements: ['urn:one', 'urn:two'],
      },
    )
    expect(await said({ groups: ['x'.repeat(301), 'a\u0000b', '', 'x'.repeat(300)] })).to.deep.equal({
      groups: ['x'.repeat(300)],
      entitlements: [],
    })
    const many = Array.from({ length: 300 }, (_, i) => `/${i}`)
    expect((await said({ groups: many })).groups).to.deep.equal(many.slice(0, 200))
    expect(await said({ 'wlcg.groups': { '/a': true } })).to.deep.equal({ groups: [], entitlements: [] })
  })

  it('takes RS256 as well as ES256', async () => {
    await issuer.rotate('rsa', 'RS256')
    expect(await verifier.verify(`Bearer ${await issuer.sign(good)}`)).to.include({ subject: 'jdoe' })
  })

  it('takes this server among several audiences', async () => {
    const token = await issuer.sign({ ...good, aud: ['https://other.example', AUDIENCE] })
    expect(await verifier.verify(`Bearer ${token}`)).to.include({ subject: 'jdoe' })
  })

  for (const authorization of [undefined, '', 'Basic YTpi', 'Bearer', 'Bearer\n']) {
    it(`${JSON.stringify(authorization)}: TOKEN_MISSING`, async () => {
      expect(await codeOf(authorization)).to.deep.equal(['TOKEN_MISSING', 401])
    })
  }

  for (const token of ['', 'x', 'a.b.c', 'a b', 'a.b.c.d.e', `${'A'.repeat(20_000)}.b.c`, '{}']) {
    it(`"${token.slice(0, 20)}": TOKEN_MALFORMED`, async () => {
      expect(await codeOf(`Bearer ${token}`)).to.deep.equal(['TOKEN_MALFORMED', 401])
    })
  }

  const claims: [what: string, change: (now: number) => Claims, code: string][] = [
    ['expired', now => ({ exp: now - 1 }), 'TOKEN_EXPIRED'],
    ['expiring now: no tolerance', now => ({ exp: now }), 'TOKEN_EXPIRED'],
    ['without an end', () => ({ exp: undefined }), 'TOKEN_MALFORMED'],
    ['with an end that is no number', () => ({ exp: 'never' }), 'TOKEN_MALFORMED'],
    ['not valid yet', now => ({ nbf: now + 1 }), 'TOKEN_NOT_YET_VALID'],
    ['for another audience', () => ({ aud: 'https://storage.example' }), 'TOKEN_AUDIENCE'],
    ['for this audience and a slash', () => ({ aud: `${AUDIENCE}/` }), 'TOKEN_AUDIENCE'],
    ['for any audience', () => ({ aud: 'https://wlcg.cern.ch/jwt/v1/any' }), 'TOKEN_AUDIENCE'],
    ['for nobody', () => ({ aud: undefined }), 'TOKEN_AUDIENCE'],
    ['of an unknown issuer', () => ({ iss: 'https://evil.example' }), 'TOKEN_ISSUER'],
    ['of this issuer and a slash', () => ({ iss: `${ORIGIN}/` }), 'TOKEN_ISSUER'],
    ['of no issuer', () => ({ iss: undefined }), 'TOKEN_ISSUER'],
    ['without a subject', () => ({ sub: undefined }), 'TOKEN_MALFORMED'],
    ['with a subject longer than 255 characters', () => ({ sub: 's'.repeat(256) }), 'TOKEN_MALFORMED'],
    ['with scopes in a list', () => ({ scope: ['openid'] }), 'TOKEN_MALFORMED'],
    ['of an unknown profile', () => ({ 'wlcg.ver': '2.0' }), 'TOKEN_MALFORMED'],
  ]
  for (const [what, change, code] of claims) {
    it(`a token ${what}: ${code}`, async () => {
      const token = await issuer.sign({ ...good, ...change(clock.now() / 1000) })
      expect(await codeOf(`Bearer ${token}`)).to.deep.equal([code, 401])
    })
  }

  it('asks nothing of an issuer that it does not trust', async () => {
    await rejection(verifier.verify(`Bearer ${await issuer.sign({ ...good, iss: 'https://evil.example' })}`))
    expect(issuer.seen).to.deep.equal([])
  })

  describe('signatures', () => {
    it('with a key of the same name that is not the issuer`s: TOKEN_SIGNATURE', async () => {
      const { privateKey } = await generateKeyPair('ES256')
      const forged = await new SignJWT(good).setProtectedHeader({ alg: 'ES256', kid: 'key-1' }).sign(privateKey)
      expect(await codeOf(`Bearer ${forged}`)).to.deep.equal(['TOKEN_SIGNATURE', 401])
    })

    it('with a key that the issuer does not publish: TOKEN_SIGNATURE', async () => {
      expect(await codeOf(`Bearer ${await issuer.sign(good, { kid: 'key-0' })}`)).to.deep.equal([
        'TOKEN_SIGNATURE',
        401,
      ])
    })

    it('over other claims: TOKEN_SIGNATURE', async () => {
      const [header, , signature] = (await issuer.sign(good)).split('.')
      const payload = Buffer.from(JSON.stringify({ ...good, sub: 'admin' })).toString('base64url')
      expect(await codeOf(`Bearer ${header}.${payload}.${signature}`)).to.deep.equal(['TOKEN_SIGNATURE', 401])
    })

    it('by HMAC with the public key: TOKEN_ALGORITHM', async () => {
      const { publicKey } = await generateKeyPair('RS256')
      const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url')
      const signed = `${encode({ alg: 'HS256', kid: 'key-1' })}.${encode(good)}`
      const mac = createHmac('sha256', await exportSPKI(publicKey))
        .update(signed)
        .digest('base64url')
      expect(await codeOf(`Bearer ${signed}.${mac}`)).to.deep.equal(['TOKEN_ALGORITHM', 401])
    })

    it('of none: TOKEN_ALGORITHM', async () => {
      expect(await codeOf(`Bearer ${new UnsecuredJWT(good).encode()}`)).to.deep.equal(['TOKEN_ALGORITHM', 401])
    })

    it('of another algorithm than the key`s: TOKEN_SIGNATURE', async () => {
      const { privateKey } = await generateKeyPair('RS256')
      const forged = await new SignJWT(good).setProtectedHeader({ alg: 'RS256', kid: 'key-1' }).sign(privateKey)
      expect(await codeOf(`Bearer ${forged}`)).to.deep.equal(['TOKEN_SIGNATURE', 401])
    })

    it('without a kid: TOKEN_MALFORMED', async () => {
      expect(await codeOf(`Bearer ${await issuer.sign(good, { kid: '' })}`)).to.deep.equal(['TOKEN_MALFORMED', 401])
    })
  })

  it('answers 503 while the keys cannot be had, whatever the trouble', async () => {
    issuer.on('/jwks', (_request, response) => json(response, {}, 429))
    expect(await codeOf(`Bearer ${await issuer.sign(good)}`)).to.deep.equal(['ISSUER_UNREACHABLE', 503])
  })

  it('shows neither token nor claims in an error', async () => {
    const token = await issuer.sign({ ...good, aud: 'https://other.example', sub: 'somebody' })
    const error = await rejection(verifier.verify(`Bearer ${token}`))
    const printed = inspect(error, { depth: 10, showHidden: true })
    for (const part of [...token.split('.'), 'somebody']) expect(printed).not.to.include(part)
  })

  describe('the cache', () => {
    it('verifies a token once, and lets it end', async () => {
      const authorization = `Bearer ${await issuer.sign(good)}`
      const first = await verifier.verify(authorization)
      expect(await verifier.verify(authorization), 'the very same').to.equal(first)
      clock.advance(599_999)
      expect(await verifier.verify(authorization)).to.equal(first)
      clock.advance(1)
      expect(await codeOf(authorization)).to.deep.equal(['TOKEN_EXPIRED', 401])
    })

    it('forgets the least recently used', async () => {
      const tokens = await Promise.all(
        ['a', 'b', 'c'].map(async sub => `Bearer ${await issuer.sign({ ...good, sub })}`),
      )
      const [a, b, c] = tokens
      const firstA = await verifier.verify(a)
      const firstB = await verifier.verify(b)
      await verifier.verify(a)
      await verifier.verify(c)
      expect(await verifier.verify(a)).to.equal(firstA)
      expect(await verifier.verify(b), 'verified again').not.to.equal(firstB)
    })
  })
})
