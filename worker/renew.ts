import type { z } from 'zod'
import { ApiError } from '../shared/contract/client.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { oneLine } from '../shared/domain/one-line.ts'
import type { Secret } from '../shared/domain/secret.ts'
import { checkToken } from '../shared/oidc/check-token.ts'
import type { IssuerClient, TokenSet } from '../shared/oidc/issuer-client.ts'
import { IssuerError } from '../shared/oidc/issuer-error.ts'
import type { Recipient } from '../shared/oidc/sealed-transport.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Random } from '../shared/runtime/random.ts'
import { TokenUnavailable } from './failure.ts'
import { untilAnswered, type WorkerApi } from './server.ts'

type Acquired = z.output<Routes['acquireToken']['answer']>
type Order = Extract<Acquired, { kind: 'exchange' | 'refresh' }>
type Renewal = z.input<Routes['reportRenewal']['body']>['result']

/** An access token of a grant. Times on the monotonic clock, milliseconds, on the safe side. */
export interface GrantToken {
  readonly token: Secret
  readonly generation: number
  readonly endsAt: number
  /** How long it had to live when it came. */
  readonly lifeMs: number
}

export interface RenewalOptions {
  readonly api: Pick<WorkerApi, 'acquireToken' | 'reportRenewal'>
  readonly session: number
  readonly recipient: Recipient
  /** By the issuer's URL: the pool's own client there. */
  readonly issuers: ReadonlyMap<string, IssuerClient>
  readonly clock: Clock
  readonly random: Random
  /** Aborts with the session: no token is acquired any more. */
  readonly signal: AbortSignal
}

/** For one request to an issuer. IAM has taken 5 to 20 s for a refresh under load (facts/tokens.md section 2). */
export const ISSUER_TIMEOUT_MS = 30_000
/** Of a lease, not begun in: when the lease ends nothing is under way any more, or two would show one refresh token. */
const RESERVE_MS = ISSUER_TIMEOUT_MS + 5_000

const NOT_CONFIGURED = 'ISSUER_NOT_CONFIGURED'

/** Trouble of the issuer's that passes without anybody's doing. */
export function isPassing(code: string): boolean {
  return code === 'ISSUER_UNREACHABLE' || code === 'ISSUER_BUSY'
}

/** The token or refresh token inside an answer. It must have been sealed for this grant, whatever the answer says. */
export async function openSealed(
  { recipient }: Pick<RenewalOptions, 'recipient'>,
  grant: number,
  sealed: { readonly context: string; readonly token: string },
): Promise<Secret> {
  if (!sealed.context.startsWith(`grant:${grant}:`)) {
    throw new TokenUnavailable('TOKEN_MISDIRECTED', `a token for ${sealed.context} came for grant ${grant}`, {
      retryable: false,
    })
  }
  return recipient.open(sealed.token, sealed.context)
}

/**
 * Exchanges or refreshes a grant's token at its issuer, checks what came, and has it stored before it is used: a refresh
 * token that only this process knew would be lost with it. Undefined: too little of the renewal
 * lease was left, or the refresh token was over, so ask again.
 * `askedAt`: monotonic milliseconds, before the lease was asked for.
 */
export async function renew(
  options: RenewalOptions,
  grant: number,
  order: Order,
  askedAt: number,
): Promise<GrantToken | undefined> {
  const { issuers, clock, signal } = options
  const sendBy = askedAt + order.leaseSeconds * 1000 - RESERVE_MS
  await clock.sleep(Math.max(0, Math.min(order.delayMs, sendBy - clock.monotonic())), signal)
  if (signal.aborted || clock.monotonic() >= sendBy) return undefined
  const subject = await openSealed(options, grant, order)
  const requestedAt = clock.monotonic()
  let tokens: TokenSet
  try {
    const issuer = issuers.get(order.issuer)
    if (issuer === undefined) throw notConfigured(order.issuer)
    tokens = await renewAt(issuer, order, subject, sendBy)
    const { issuer: url, audience, scopes } = order
    checkToken(tokens.accessToken, { issuer: url, audience, scopes, now: clock.now() })
  } catch (error) {
    const failure = await reportFailure(options, grant, order, error)
    // The refresh token has ended: the server begins anew with a minted token, or holds the grant and says so.
    if (order.kind === 'refresh' && failure.code === 'TOKEN_REFUSED') return undefined
    throw failure
  }
  const lifeMs = tokens.expiresAt - clock.now()
  if (lifeMs <= 0) {
    const ended = new WaybillError('TOKEN_EXPIRED', 'the token that the issuer gave has ended already')
    throw await reportFailure(options, grant, order, ended)
  }
  const generation = await report(options, grant, order, {
    kind: 'renewed',
    accessToken: tokens.accessToken.reveal(),
    ...(tokens.refreshToken === undefined ? {} : { refreshToken: tokens.refreshToken.reveal() }),
    expiresInSeconds: lifeMs / 1000,
  })
  if (generation === undefined) return undefined
  return { token: tokens.accessToken, generation, endsAt: requestedAt + lifeMs, lifeMs }
}

function renewAt(
  issuer: IssuerClient,
  { kind, audience, scopes }: Order,
  subject: Secret,
  sendBy: number,
): Promise<TokenSet> {
  return kind === 'exchange'
    ? issuer.exchange({ subjectToken: subject, audience, scopes, offline: true, sendBy })
    : issuer.refresh({ refreshToken: subject, audience, scopes, sendBy })
}

/** Tells the server, so that the grant is left alone or held for the whole fleet. The result is what to throw. */
async function reportFailure(
  options: RenewalOptions,
  grant: number,
  order: Order,
  error: unknown,
): Promise<TokenUnavailable> {
  if (!(error instanceof WaybillError)) throw error
  const retryAfterSeconds = error instanceof IssuerError ? error.retryAfterSeconds : undefined
  const message = oneLine(error.message, 1000)
  await report(options, grant, order, {
    kind: 'failed',
    code: error.code,
    message,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  })
  return new TokenUnavailable(error.code, message, {
    // Without a client here another worker's turn may come.
    retryable: isPassing(error.code) || error.code === NOT_CONFIGURED,
    retryAfterSeconds,
    known: true,
  })
}

/**
 * The grant's generation then; undefined when the server takes it no more: somebody else has the lease by now. Sent even while
 * the worker stops.
 */
async function report(
  options: RenewalOptions,
  grant: number,
  order: Order,
  result: Renewal,
): Promise<number | undefined> {
  const { api, session } = options
  const { generation, kind: step } = order
  try {
    const stored = await untilAnswered(options, () =>
      api.reportRenewal({ params: { id: grant }, body: { session, generation, step, result } }),
    )
    return stored.generation
  } catch (error) {
    if (error instanceof ApiError) return undefined
    throw error
  }
}

function notConfigured(issuer: string): WaybillError {
  return new WaybillError(NOT_CONFIGURED, `this worker has no client at ${issuer}: add it to the worker's issuers`)
}
