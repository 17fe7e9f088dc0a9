import type { Caller } from './caller.ts'
import type { WorkerReach } from './reach.ts'

/** Whose data a caller sees, as keys of VOs; `undefined` is everybody's. In statements it is a reach without storages. */
export type Sight = Pick<WorkerReach, 'voIds'>

/** Of the server's own work, and of admins. */
export const EVERYTHING: Sight = {}

/**
 * An admin sees everything, whatever account it has besides; an account what is its VO's, also when a worker has it; a worker
 * without one what is of the VOs that its pool serves.
 */
export function sightOf({ admin, account, worker }: Caller): Sight {
  if (admin) return EVERYTHING
  if (account !== undefined) return { voIds: [account.voId] }
  if (worker === undefined) return { voIds: [] }
  return worker.voIds === undefined ? EVERYTHING : { voIds: worker.voIds }
}

/** What is not seen is answered as what does not exist: that it exists is another VO's business. */
export function sees({ voIds }: Sight, voId: number): boolean {
  return voIds?.includes(voId) ?? true
}
