import type { StateMachine } from './state-machine.ts'

export const GRANT_STATES = {
  WANTED: 'no token yet',
  LIVE: 'an access token that may be used',
  RENEWING: 'it needs an exchange or a refresh, or somebody is at it',
  HELD: 'the issuer or a storage refused it: it is begun anew after a while',
  REVOKED: 'its tokens were revoked',
  EXPIRED: 'nothing asks for it any more; it is begun anew when something does',
} as const
export type GrantState = keyof typeof GRANT_STATES
export type GrantEvent =
  | 'mint' // the server got a token; whether it must be exchanged is the issuer's mode
  | 'need' // a worker takes the lease to exchange or refresh
  | 'renew' // the worker has brought the new tokens
  | 'restart' // it starts again from a minted token
  | 'retry' // the issuer is away: the same again later
  | 'refuse' // the issuer said no, or gave another token than the one asked for, or a storage refused a renewed one
  | 'expire' // nothing asks for it any more, or the configuration names its issuer and client no more
  | 'revoke'

export const GRANT_MACHINE: StateMachine<GrantState, GrantEvent> = {
  WANTED: {
    mint: ['LIVE', 'RENEWING'],
    restart: 'WANTED',
    retry: 'WANTED',
    refuse: 'HELD',
    expire: 'EXPIRED',
    revoke: 'REVOKED',
  },
  LIVE: { need: 'RENEWING', restart: 'WANTED', refuse: 'HELD', expire: 'EXPIRED', revoke: 'REVOKED' },
  RENEWING: {
    need: 'RENEWING',
    renew: 'LIVE',
    restart: 'WANTED',
    retry: 'RENEWING',
    refuse: 'HELD',
    expire: 'EXPIRED',
    revoke: 'REVOKED',
  },
  HELD: { restart: 'WANTED', expire: 'EXPIRED', revoke: 'REVOKED' },
  EXPIRED: { restart: 'WANTED' },
  REVOKED: {},
}

export type GrantPurpose = WorkersPurpose | PersonalPurpose
type WorkersPurpose = 'read' | 'write' | 'clean-up' | 'delete' | 'stage' | 'list'
/** Handed to people, and never exchanged, since no worker pool holds them. `replace`: an upload that broke off is removed first. */
export type PersonalPurpose = 'upload' | 'replace' | 'download'

export function isPersonal(purpose: GrantPurpose): purpose is PersonalPurpose {
  return purpose === 'upload' || purpose === 'replace' || purpose === 'download'
}

/** always: the worker pool exchanges each grant once. when-needed: only for autonomy. never: the server re-mints. */
export type ExchangeMode = 'always' | 'when-needed' | 'never'

/** How grants of this purpose are renewed at an issuer of this mode. */
export function exchangeModeOf(purpose: GrantPurpose, mode: ExchangeMode): ExchangeMode {
  return isPersonal(purpose) ? 'never' : mode
}

export interface GrantFacts {
  readonly state: GrantState
  /** Number of tokens it has had; 0: none yet. */
  readonly generation: number
  readonly exchanged: boolean
  readonly hasRefreshToken: boolean
  /** A storage answered 401 to the token that it has: only another one will do. */
  readonly refused: boolean
  /** Of the access token, epoch ms. */
  readonly expiresAt: number
  readonly lifetimeMs: number
}

/** Whether a token that lives so long is exchanged for one that can be refreshed. Milliseconds. */
export function exchanges(mode: ExchangeMode, autonomyMs: number, lifetimeMs: number): boolean {
  return mode === 'always' || (mode === 'when-needed' && autonomyMs > lifetimeMs)
}

export type GrantStep = 'mint' | 'exchange' | 'refresh' | 'none'

/**
 * What a grant needs before it can be used for an operation that wants `lifeMs` of token. The server mints, the workers
 * exchange and refresh. `autonomyMs`: how long the pool must be able to work without the server.
 */
export function grantStep(
  grant: GrantFacts,
  mode: ExchangeMode,
  autonomyMs: number,
  lifeMs: number,
  now: number,
): GrantStep {
  if (grant.state === 'HELD' || grant.state === 'REVOKED') return 'none'
  if (grant.generation === 0 || grant.state === 'WANTED' || grant.state === 'EXPIRED') return 'mint'
  // A token shorter than what is asked for is as good as it gets while it is fresh: half its life must be left.
  const wanted = Math.min(lifeMs, grant.lifetimeMs / 2)
  const alive = !grant.refused && grant.expiresAt - now > wanted
  if (!exchanges(mode, autonomyMs, grant.lifetimeMs)) return alive ? 'none' : 'mint'
  if (!grant.exchanged) return grant.expiresAt > now ? 'exchange' : 'mint'
  if (alive) return 'none'
  return grant.hasRefreshToken ? 'refresh' : 'mint'
}

/** Begins the error of a grant that is held since a storage refused its tokens. */
export const STORAGE_REFUSED = 'STORAGE_REFUSED_TOKEN'

/** A storage's 401, as a worker tells it. */
export interface StorageRefusal {
  /** Of the token that was shown. */
  readonly generation: number
  /** To the canary: the storage does not believe the token. Any other request may have been one that is never allowed. */
  readonly canary: boolean
}

export interface RefusedFacts {
  readonly state: GrantState
  readonly generation: number
  /** Somebody is getting the next token just now. */
  readonly renewing: boolean
  /** The token that was last renewed, or held, for a refusal; 0: none. */
  readonly refusedGeneration: number
  /** When that was, or when the hold ended, epoch ms. */
  readonly refusedAt: number
}

/**
 * What a storage's refusal of a token comes to. One renewal in `holdMs` (milliseconds); a canary that is refused with a later
 * token in that time holds the grant; while somebody is getting another, that has to wait (`later`): it would be forgotten.
 */
export function afterRefusal(
  grant: RefusedFacts,
  refusal: StorageRefusal,
  holdMs: number,
  now: number,
): 'renew' | 'hold' | 'later' | 'nothing' {
  if (grant.state !== 'LIVE' && grant.state !== 'RENEWING') return 'nothing'
  const lately = grant.refusedGeneration > 0 && now < grant.refusedAt + holdMs
  const holds = lately && refusal.canary && refusal.generation > grant.refusedGeneration
  if (grant.renewing) return holds ? 'later' : 'nothing'
  if (lately) return holds ? 'hold' : 'nothing'
  return refusal.generation === grant.generation ? 'renew' : 'nothing'
}
