import type { Context } from '../context.ts'
import { type Claimant, type ClaimedRow, claimOnLink, claimToSettle, linksToServe } from './claim.ts'
import { settleShare } from './settling.ts'

const LINKS_PER_CLAIM = 5

/**
 * Up to `limit` transfers for a worker. Those to settle come first, since they hold slots, but take half of the claim: a storage
 * that is gone must not keep every worker busy with looks at it. Throws 409 SESSION_ENDED.
 */
export async function claimWork(
  { db, clock, random }: Pick<Context, 'db' | 'clock' | 'random'>,
  claimant: Claimant,
  limit: number,
): Promise<ClaimedRow[]> {
  if (limit === 0) return []
  const settle = (most: number): Promise<ClaimedRow[]> =>
    most === 0 ? Promise.resolve([]) : db.write(executor => claimToSettle(executor, claimant, most, clock.now()))
  const share = settleShare(limit, random.fraction())
  const claimed = await settle(share)
  const links = await linksToServe(db.read, claimant)
  for (const link of links.slice(0, LINKS_PER_CLAIM)) {
    const rows = await db.write(executor => claimOnLink(executor, link, claimant, limit - claimed.length, clock.now()))
    claimed.push(...rows)
    if (rows.length > 0) break
  }
  return claimed.length > 0 || share > 0 ? claimed : settle(limit)
}
