import { expect } from 'chai'
import { createJwksCache, type JwksCache } from '../../shared/oidc/jwks-cache.ts'
import { json, type LocalIssuer, ORIGIN, rejection, startLocalIssuer } from './oidc-local-issuer.ts'
import { type ManualClock, manualClock } from './oidc-manual-clock.ts'

const HOUR = 3_600_000
const header = (kid: string): { alg: string; kid: string } => ({ alg: 'ES256', kid })

describe('keys of an issuer', () => {
  let issuer: LocalIssuer
  let clock: ManualClock
  let keys: JwksCache
  let down: boolean
  let tried: number

  beforeEach(async () => {
    issuer = await startLocalIssuer()
    clock = manualClock()
    down = false
    tried = 0
    keys = createJwksCache({
      issuer: ORIGIN,
      clock,
      timeoutMs: 10_000,
      fetch: (url, init) => {
        tried++
        return down ? Promise.reject(new TypeError('fetch failed')) : issuer.fetch(url, init)
      },
    })
  })
  afterEach(() => issuer.stop())

  const fetched = (): number => issuer.seen.filter(({ path }) => path === '/jwks').length

  it('are fetched once, however many ask at the same time', async () => {
    const found = await Promise.all(Array.from({ length: 20 }, () => keys.find(header('key-1'))))
    expect(found.every(key => key?.type === 'public')).to.equal(true)
    expect(fetched()).to.equal(1)
  })

  it('are refreshed when an hour old, while the old ones serve', async () => {
    await keys.find(header('key-1'))
    clock.advance(HOUR - 1)
    await keys.find(header('key-1'))
    expect(fetched()).to.equal(1)
    clock.advance(1)
    const refreshed = new Promise<void>(resolve => {
      issuer.on('/jwks', (_request, response) => {
        json(response, { keys: [] })
        resolve()
      })
    })
    expect(await keys.find(header('key-1'))).not.to.equal(undefined)
    await refreshed
    expect(fetched()).to.equal(2)
  })

  it('serve through an outage of less than four days', async () => {
    await keys.find(header('key-1'))
    down = true
    clock.advance(96 * HOUR - 1)
    expect(await keys.find(header('key-1'))).not.to.equal(undefined)
    clock.advance(60_001)
    const error = await rejection(keys.find(header('key-1')))
    expect(error.code).to.equal('ISSUER_UNREACHABLE')
  })

  it('remember a failure for a minute', async () => {
    down = true
    for (let i = 0; i < 20; i++) {
      expect((await rejection(keys.find(header('key-1')))).code).to.equal('ISSUER_UNREACHABLE')
    }
    expect(tried).to.equal(1)
    clock.advance(60_000)
    down = false
    expect(await keys.find(header('key-1'))).not.to.equal(undefined)
  })

  it('are fetched for an unknown kid, so that a new key works at once', async () => {
    await keys.find(header('key-1'))
    await issuer.rotate('key-2')
    expect(await keys.find(header('key-2'))).not.to.equal(undefined)
    expect(fetched()).to.equal(2)
  })

  it('are fetched for unknown kids once a minute at most', async () => {
    await keys.find(header('key-1'))
    for (let i = 0; i < 20; i++) expect(await keys.find(header(`invented-${i}`))).to.equal(undefined)
    expect(fetched()).to.equal(2)
    clock.advance(60_000)
    await keys.find(header('invented'))
    expect(fetched()).to.equal(3)
  })

  it('do not know an unknown kid during an outage, which is no error of ours', async () => {
    await keys.find(header('key-1'))
    down = true
    expect(await keys.find(header('invented'))).to.equal(undefined)
    expect(await keys.find(header('key-1'))).not.to.equal(undefined)
  })

  const nonsense: [what: string, body: unknown][] = [
    ['no keys', {}],
    ['a list', []],
    ['a key that is none', { keys: [{ kid: 'key-1', kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA' }] }],
  ]
  for (const [what, body] of nonsense) {
    it(`are ISSUER_NONSENSE when the set is ${what}`, async () => {
      issuer.on('/jwks', (_request, response) => json(response, body))
      expect((await rejection(keys.find(header('key-1')))).code).to.equal('ISSUER_NONSENSE')
    })
  }

  it('are never those of an http address', async () => {
    const metadata = { issuer: ORIGIN, jwks_uri: 'http://issuer.example/jwks' }
    issuer.on('/.well-known/openid-configuration', (_request, response) => json(response, metadata))
    expect((await rejection(keys.find(header('key-1')))).code).to.equal('ISSUER_NONSENSE')
  })
})
