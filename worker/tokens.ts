import type { z } from 'zod'
import type { Routes } from '../shared/contract/routes.ts'
import { STORAGE_REFUSED } from '../shared/domain/grant-state.ts'
import type { Secret } from '../shared/domain/secret.ts'
import { TokenUnavailable } from './failure.ts'
import { type GrantToken, isPassing, openSealed, type RenewalOptions, renew } from './renew.ts'
import { untilAnswered } from './server.ts'

export interface GrantTokensOptions extends RenewalOptions {
  readonly onLookup?: (hit: boolean) => void
}

/** How long somebody else's renewal is waited for. IAM has taken 20 s under load (facts/tokens.md section 2). */
const PATIENCE_MS = 120_000
/** For the metadata of all issuers, before any renewal: one that is away must not hold up the tokens of others. */
const DISCOVERY_MS = 5_000
/** Tokens in memory; the longest held goes first, and is fetched again when it is needed. */
const MOST_HELD = 1_000
/** Asks for the freshest token there is: the server renews what has lived half its life. */
const FRESHEST_SECONDS = 86_400

type Refused = NonNullable<z.input<Routes['acquireToken']['body']>['refused']>

/** True while more is left of a token than the operation needs, or than half its life if it was never longer. */
export function isFresh({ endsAt, lifeMs }: GrantToken, lifeSeconds: number, now: number): boolean {
  return endsAt - now > Math.min(lifeSeconds * 1000, lifeMs / 2)
}

/**
 * The access tokens of grants, in memory only, one acquisition at a time for each grant. They come from the server's vault;
 * whoever asks first when one must be exchanged or refreshed does that for the whole fleet.
 */
export class GrantTokens {
  readonly #options: GrantTokensOptions
  readonly #held = new Map<number, GrantToken>()
  readonly #underWay = new Map<number, Promise<GrantToken>>()
  /** By grant: what a storage refused, until another token is there. */
  readonly #refused = new Map<number, Refused>()
  /** Metadata are loaded before a lease is asked for: they would cost of its time. */
  readonly #discovered: Promise<void>

  constructor(options: GrantTokensOptions) {
    this.#options = options
    this.#discovered = discoverAll(options)
  }

  /** To be asked just before the token is sent. Rejects with `TokenUnavailable`. */
  async tokenFor(grant: number, lifeSeconds: number): Promise<Secret> {
    const held = this.#held.get(grant)
    const hit = held !== undefined && isFresh(held, lifeSeconds, this.#options.clock.monotonic())
    this.#options.onLookup?.(hit)
    return hit ? held.token : (await this.#fetch(grant, lifeSeconds)).token
  }

  /** Has a grant renewed that the server wants renewed, so that the work that needs it can be claimed. */
  async renewAhead(grant: number): Promise<void> {
    await this.#fetch(grant, FRESHEST_SECONDS)
  }

  /**
   * A storage answered 401 to this token, to the canary or to another request. If it is still the one held, the server hears of
   * it when the next is asked for.
   */
  forget(grant: number, token: Secret, refusal: Pick<Refused, 'canary' | 'message'>): void {
    const held = this.#held.get(grant)
    if (held?.token !== token) return
    this.#held.delete(grant)
    this.#refused.set(grant, { ...refusal, generation: held.generation })
  }

  /** Resolves when no acquisition is under way: a renewed pair of tokens is then stored at the server. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#underWay.values())
  }

  #fetch(grant: number, lifeSeconds: number): Promise<GrantToken> {
    const underWay = this.#underWay.get(grant)
    if (underWay !== undefined) return underWay
    const fetching = this.#acquireUnrefused(grant, lifeSeconds)
      .then(acquired => this.#hold(grant, acquired))
      .finally(() => this.#underWay.delete(grant))
    this.#underWay.set(grant, fetching)
    return fetching
  }

  /** What a storage refused while it was asked for once more is asked for anew: the server has not heard of it yet. */
  async #acquireUnrefused(grant: number, lifeSeconds: number): Promise<GrantToken> {
    for (;;) {
      const told = this.#refused.get(grant)
      const acquired = await this.#acquire(grant, lifeSeconds)
      const refused = this.#refused.get(grant)
      if (refused === told || refused?.generation !== acquired.generation) return acquired
    }
  }

  /** Of one generation there is one token in memory, so that whoever has it can say that it was refused. */
  #hold(grant: number, acquired: GrantToken): GrantToken {
    this.#refused.delete(grant)
    const before = this.#held.get(grant)
    const held = before?.generation === acquired.generation ? before : acquired
    this.#held.delete(grant)
    this.#held.set(grant, held)
    const oldest = this.#held.keys().next()
    if (this.#held.size > MOST_HELD && !oldest.done) this.#held.delete(oldest.value)
    return held
  }

  async #acquire(grant: number, lifeSeconds: number): Promise<GrantToken> {
    const { api, session, clock, signal } = this.#options
    await this.#discovered
    const giveUpAt = clock.monotonic() + PATIENCE_MS
    const refused = this.#refused.get(grant)
    const body = { session, lifeSeconds, ...(refused === undefined ? {} : { refused }) }
    while (!signal.aborted && clock.monotonic() < giveUpAt) {
      let askedAt = 0
      const answer = await untilAnswered(this.#options, () => {
        askedAt = clock.monotonic()
        return api.acquireToken({ params: { id: grant }, body, signal })
      })
      switch (answer.kind) {
        case 'token': {
          const lifeMs = answer.expiresInSeconds * 1000
          const { generation } = answer
          const token = await openSealed(this.#options, grant, answer)
          return { token, generation, endsAt: askedAt + lifeMs, lifeMs }
        }
        case 'wait':
          if (clock.monotonic() + answer.delayMs > giveUpAt) throw late(grant, answer.delayMs / 1000)
          await clock.sleep(answer.delayMs, signal)
          break
        case 'refused':
          throw new TokenUnavailable(answer.code, answer.message, {
            retryable: isPassing(answer.code) || answer.code === STORAGE_REFUSED,
            known: answer.code !== 'ISSUER_UNKNOWN',
          })
        default: {
          const renewed = await renew(this.#options, grant, answer, askedAt)
          if (renewed !== undefined) return renewed
        }
      }
    }
    throw late(grant)
  }
}

/** Whatever could not be loaded is loaded with the first request to that issuer. Never rejects. */
async function discoverAll({ issuers, clock, signal }: GrantTokensOptions): Promise<void> {
  const done = new AbortController()
  const onAbort = () => done.abort()
  signal.addEventListener('abort', onAbort, { once: true })
  const all = Promise.allSettled([...issuers.values()].map(issuer => issuer.discover()))
  await Promise.race([all, clock.sleep(DISCOVERY_MS, done.signal)])
  signal.removeEventListener('abort', onAbort)
  done.abort()
}

function late(grant: number, retryAfterSeconds?: number): TokenUnavailable {
  return new TokenUnavailable('TOKEN_LATE', `no token of grant ${grant} comes in time; it is tried again`, {
    retryable: true,
    known: true,
    retryAfterSeconds: retryAfterSeconds === undefined ? undefined : Math.min(retryAfterSeconds, 86_400),
  })
}
