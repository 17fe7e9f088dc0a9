import { expect } from 'chai'
import { decodeJwt } from 'jose'
import { Secret } from '../../shared/domain/secret.ts'
import type { HttpClient } from '../../shared/http/client.ts'
import type { IssuerClient } from '../../shared/oidc/issuer-client.ts'
import { ApiToken } from '../../worker/api-token.ts'
import { manualClock } from '../unit/oidc-manual-clock.ts'
import { Stage } from './stage.ts'

const AUDIENCE = 'https://waybill.example.org'
const SCOPES = ['wlcg']

describe('the worker`s own token for the API', () => {
  const clock = manualClock()
  let minted: number
  let token: ApiToken

  beforeEach(() => {
    minted = 0
    const issuer: Pick<IssuerClient, 'mint'> = {
      mint: async () => ({ accessToken: new Secret(`token-${++minted}`), expiresAt: clock.now() + 3_600_000 }),
    }
    token = new ApiToken({ issuer, audience: AUDIENCE, scopes: SCOPES, clock })
  })

  it('is minted once, and again when half of its life is over', async () => {
    await Promise.all([token.get(), token.get()])
    clock.advance(1_799_999)
    expect((await token.get()).reveal()).to.equal('token-1')
    clock.advance(1)
    expect((await token.get()).reveal()).to.equal('token-2')
  })

  it('is minted anew after the server refused it', async () => {
    const status = { now: 200 }
    const http = { request: async () => ({ status: status.now }), close: () => undefined } as unknown as HttpClient
    const watching = token.watching(http)
    await token.get()
    await watching.request({ method: 'GET', url: 'https://waybill.example.org/' })
    expect((await token.get()).reveal()).to.equal('token-1')
    status.now = 401
    await watching.request({ method: 'GET', url: 'https://waybill.example.org/' })
    expect((await token.get()).reveal()).to.equal('token-2')
  })

  it('is for the server alone and opens no storage', async () => {
    const stage = await Stage.create()
    try {
      const [issuer] = [...stage.options.issuers.values()]
      if (issuer === undefined) throw new Error('no issuer')
      const own = new ApiToken({ issuer, audience: AUDIENCE, scopes: SCOPES, clock: stage.options.clock })
      const claims = decodeJwt((await own.get()).reveal())
      expect(claims.aud).to.deep.equal(AUDIENCE)
      expect(claims.scope).to.equal('wlcg')
    } finally {
      await stage.end()
    }
  })
})
