import type { Context } from '../context.ts'
import { type Executor, query } from '../database/sql.ts'
import { claimOnLink, claimToSettle, hasFree, isToSettle, linksToServe } from './claim.ts'
import type { Claimant, ClaimedRow } from './claim-places.ts'
import { unlessDrained } from './session-store.ts'
import { settleShare } from './settling.ts'

/** Whether more is queued on the link of a transfer. */
export async function isMoreQueued(read: Executor, transferId: number): Promise<boolean> {
  const sql =
    'SELECT links.id FROM transfers JOIN links ON links.id = transfers.link_id WHERE transfers.id = :transferId AND has_work'
  return (await query(read, sql, { transferId })).length > 0
}

/** Links that one claim looks at in vain: their queued work is under a permit, or its tokens are just being minted. */
const LINKS_IN_VAIN = 25

/**
 * Up to `limit` transfers for a worker. Those to settle come first, since they hold slots, but take half of the claim: a storage
 * that is gone must not keep every worker busy with looks at it. `again`: it has just found nothing, and looks before it writes.
 * Throws 409 SESSION_ENDED.
 */
export async function claimWork(
  { db, clock, random }: Pick<Context, 'db' | 'clock' | 'random'>,
  claimant: Claimant,
  limit: number,
  again = false,
): Promise<ClaimedRow[]> {
  if (limit === 0) return []
  const settle = async (most: number): Promise<ClaimedRow[]> => {
    // A look first: who waits for work asks once a second, and there is rarely something to settle.
    if (most === 0 || !(await isToSettle(db.read, claimant, clock.now()))) return []
    return unlessDrained(db.write(executor => claimToSettle(executor, claimant, most, clock.now())))
  }
  const share = settleShare(limit, random.fraction())
  const claimed = await settle(share)
  const links = await linksToServe(db.read, claimant, clock.now())
  let inVain = 0
  for (const link of links) {
    if (again && !(await hasFree(db.read, link.id, claimant, clock.now()))) continue
    const rows = await unlessDrained(
      db.write(executor =>
        claimOnLink(executor, link, claimant, Math.min(limit - claimed.length, link.most), clock.now()),
      ),
    )
    claimed.push(...rows)
    inVain += 1
    if (rows.length > 0 || inVain === LINKS_IN_VAIN) break
  }
  return claimed.length > 0 || share > 0 ? claimed : settle(limit)
}
