import { WaybillError } from '../../shared/domain/errors.ts'
import { oneLine } from '../../shared/domain/one-line.ts'
import { grantFor, type TokenContext } from '../tokens/tokens.ts'
import type { Claimant } from '../transfers/claim-places.ts'
import { claimImports, type ImportRow } from './store.ts'
import { endTurn, setImportGrant } from './turn-store.ts'

/** Before one is given out again for which there is no grant. Milliseconds. */
const AGAIN_MS = 60_000

/**
 * Imports for a worker, each with a grant of the issuer and client that its VO has now. One for which there is none waits, and says
 * why. Throws 409 SESSION_ENDED.
 */
export async function takeImports(context: TokenContext, claimant: Claimant, limit: number): Promise<ImportRow[]> {
  const { db, clock, storages, issuers, wake } = context
  const rses = await storages.all()
  const taken = await db.write(async executor => {
    const now = clock.now()
    const given: ImportRow[] = []
    for (const row of await claimImports(executor, claimant, limit, now)) {
      const rse = rses.find(({ id, voId }) => id === row.rse_id && voId === row.vo_id)
      try {
        // This server may not have heard of its storage yet.
        if (rse === undefined)
          throw new WaybillError('RSE_UNKNOWN', `storage ${row.rse_id} is not known`, { status: 404 })
        const grant_id = await grantFor(executor, issuers, rse, 'list', [row.path], now)
        await setImportGrant(executor, row.id, grant_id)
        given.push({ ...row, grant_id })
      } catch (error) {
        if (!(error instanceof WaybillError)) throw error
        const words = oneLine(`${error.code}: ${error.message}`, 1000)
        const turn = { state: 'QUEUED', notBefore: now + AGAIN_MS, failures: row.failures, error: words } as const
        await endTurn(executor, row.id, turn, now)
      }
    }
    return given
  })
  if (taken.length > 0) wake.notify('grants')
  return taken
}
