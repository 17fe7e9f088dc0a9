import { WaybillError } from '../../shared/domain/errors.ts'
import type { Service } from '../../shared/runtime/services.ts'
import { periodic } from '../periodic.ts'
import type { Rse } from '../storages/directory.ts'
import { ensureGrant, type GrantKey, refreshReady, setBundleGrants } from './grant-store.ts'
import { grantKey, type TokenContext } from './tokens.ts'
import { type UnplannedBundle, unplannedBundles } from './unplanned.ts'

const BUNDLES_PER_ROUND = 50
/** A bundle that can have no grants (a path outside its storage's prefix) is looked at again after this long. */
const ASIDE_MS = 300_000

interface Plan {
  readonly bundle: number
  readonly source: GrantKey
  readonly destination: GrantKey
}

/** Chooses grants for bundles of work that have none: what they need is minted ahead of the claims. */
export function grantPlanner(context: TokenContext): Service {
  const aside = new Map<number, number>()
  return periodic({
    ...context,
    name: 'plan grants',
    interval: 1_000,
    topic: 'grants',
    round: () => planGrants(context, aside),
  })
}

/** True when there may be more. Each bundle it looks at gets grants or is put aside, so none is seen in the next round. */
async function planGrants(context: TokenContext, aside: Map<number, number>): Promise<boolean> {
  const { clock, db, issuers, log, storages, wake } = context
  const now = clock.now()
  for (const [bundle, until] of aside) if (until <= now) aside.delete(bundle)
  const among = { voIds: issuers.all().map(issuer => issuer.voId), aside: [...aside.keys()] }
  const bundles = await unplannedBundles(db.read, among, BUNDLES_PER_ROUND)
  if (bundles.length === 0) return false
  const rses = await storages.all()
  const plans: Plan[] = []
  for (const bundle of bundles) {
    try {
      plans.push(planOf(context, rses, bundle))
    } catch (error) {
      if (!(error instanceof WaybillError)) throw error
      aside.set(bundle.id, now + ASIDE_MS)
      log.warn({ bundle: bundle.id, code: error.code, error: error.message }, 'work can have no tokens and waits')
    }
  }
  if (plans.length === 0) return true
  await db.write(async executor => {
    const rows = []
    for (const { bundle, source, destination } of plans) {
      rows.push({
        bundle,
        source: await ensureGrant(executor, source, now),
        destination: await ensureGrant(executor, destination, now),
      })
    }
    await setBundleGrants(executor, rows)
    await refreshReady(
      executor,
      rows.flatMap(row => [row.source, row.destination]),
    )
  })
  wake.notify('grants')
  return true
}

function planOf({ issuers }: TokenContext, rses: readonly Rse[], bundle: UnplannedBundle): Plan {
  const storage = (id: number): Rse => {
    const rse = rses.find(candidate => candidate.id === id && candidate.voId === bundle.vo_id)
    if (rse === undefined) throw new WaybillError('RSE_UNKNOWN', `storage ${id} is not one of the VO's`)
    return rse
  }
  return {
    bundle: bundle.id,
    source: grantKey(issuers, storage(bundle.source_rse_id), 'read', [bundle.source_path]),
    destination: grantKey(issuers, storage(bundle.destination_rse_id), 'write', [bundle.destination_path]),
  }
}
