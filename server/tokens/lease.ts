import type { Executor } from '../database/sql.ts'
import { type GrantRow, refreshReady } from './grant-store.ts'
import { type Issuer, takeTurn } from './issuers.ts'
import { type Lease, putOff, takeLease } from './lease-store.ts'

/** Milliseconds: `delayMs` until the request may be sent, or until it is worth asking again. */
export type Leased = { kind: 'leased'; grant: GrantRow; delayMs: number } | { kind: 'later'; delayMs: number }

/**
 * The lease to renew a grant, with a turn at its issuer. While the issuer wants to be left alone, or too many stand in its
 * queue, there is no lease: it would run out before the turn. Undefined when somebody else has the lease.
 */
export async function leaseWithTurn(
  executor: Executor,
  grant: GrantRow,
  issuer: Issuer,
  lease: Lease,
  now: number,
): Promise<Leased | undefined> {
  const leased = await takeLease(executor, grant, lease, now)
  if (leased === undefined) return undefined
  const { given, delayMs } = await takeTurn(executor, issuer, grant.id, now)
  if (!given) {
    // A token that lives is used on until its turn to be minted anew has come.
    await putOff(executor, leased, now + delayMs, grant.state)
    return { kind: 'later', delayMs }
  }
  if (leased.state !== grant.state) await refreshReady(executor, [grant.id])
  return { kind: 'leased', grant: leased, delayMs }
}
