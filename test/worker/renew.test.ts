import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { IssuerError } from '../../shared/oidc/issuer-error.ts'
import type { RefreshRequest } from '../../shared/oidc/refresh.ts'
import { newRecipient, sealFor } from '../../shared/oidc/sealed-transport.ts'
import { systemRandom as random } from '../../shared/runtime/random.ts'
import { renew } from '../../worker/renew.ts'
import { ManualClock } from '../unit/http-manual-clock.ts'

const ISSUER = 'https://issuer.example.org'
const LEASE_SECONDS = 60

describe('a refresh within its lease', () => {
  /** By when each request must have been sent, if the answer to the request for the lease took so long. */
  async function askedAfter(ms: number): Promise<(number | undefined)[]> {
    const clock = new ManualClock()
    const recipient = await newRecipient()
    const asked: (number | undefined)[] = []
    const refresh = async ({ sendBy }: RefreshRequest): Promise<never> => {
      asked.push(sendBy)
      throw new IssuerError('ISSUER_UNREACHABLE', 'no answer')
    }
    const never = () => expect.fail('nothing else is asked of the issuer')
    const client = { mint: never, exchange: never, refresh, revoke: never, discover: never }
    const options = {
      api: {
        acquireToken: () => expect.fail('nothing is acquired here'),
        reportRenewal: async () => ({ generation: 1 }),
      },
      session: 1,
      recipient,
      issuers: new Map([[ISSUER, client]]),
      clock,
      random,
      signal: new AbortController().signal,
    }
    const context = 'grant:1:1:refresh'
    const token = await sealFor(recipient.publicJwk, new Secret('refresh'), context)
    const order = {
      kind: 'refresh' as const,
      generation: 1,
      leaseSeconds: LEASE_SECONDS,
      issuer: ISSUER,
      audience: 'a',
    }
    const askedAt = clock.monotonic()
    await clock.advance(ms)
    const renewing = renew(
      options,
      1,
      { ...order, delayMs: 1_000, scopes: ['storage.read:/d'], context, token },
      askedAt,
    )
    const ended = renewing.catch(() => undefined)
    await clock.advance(1_000)
    await ended
    return asked
  }

  it('is sent while a request that is given up after its timeout still ends before the lease', async () => {
    expect(await askedAfter(23_000)).to.deep.equal([25_000])
  })

  it('is not sent any later: somebody else could show the same refresh token meanwhile', async () => {
    expect([await askedAfter(24_000), await askedAfter(30_000), await askedAfter(59_000)]).to.deep.equal([[], [], []])
  })
})
