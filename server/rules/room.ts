import type { Clock } from '../../shared/runtime/clock.ts'
import { type Executor, encodeRows, oneOf, query, queryOne } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'

/** How long what lies at a storage is as good as added up, but for what was locked since: it reads all replicas. Milliseconds. */
const ADDED_UP_MS = 600_000

interface AddedUp {
  readonly at: number
  readonly bytes: number
  /** What accounts used there then. */
  readonly used: number
}

/**
 * What may still come to the storages whose capacity is known. What nobody asks for any more takes no room: the reaper makes it. A
 * storage that is full all the same refuses the file, and is held (docs/scheduling.md).
 */
export class Rooms {
  readonly #read: Executor
  readonly #clock: Clock
  readonly #added = new Map<number, AddedUp>()

  constructor(read: Executor, clock: Clock) {
    this.#read = read
    this.#clock = clock
  }

  /** Bytes by storage; one that is absent has room for anything. */
  async left(rses: readonly Rse[]): Promise<Map<number, number>> {
    const known = rses.filter(rse => rse.capacityBytes !== null)
    if (known.length === 0) return new Map()
    const uses = await usesByRse(
      this.#read,
      known.map(rse => rse.id),
    )
    const left = new Map<number, number>()
    for (const { id, capacityBytes, minFreeBytes } of known) {
      const { used, reserved } = uses.get(id) ?? { used: 0, reserved: 0 }
      const added = await this.#addedUp(id, used)
      const taken = added.bytes + Math.max(0, used - added.used) + reserved
      left.set(id, (capacityBytes ?? 0) - (minFreeBytes ?? 0) - taken)
    }
    return left
  }

  async #addedUp(rseId: number, used: number): Promise<AddedUp> {
    const now = this.#clock.monotonic()
    const before = this.#added.get(rseId)
    // Rules that went have left room that only a new look can tell.
    if (before !== undefined && now - before.at < ADDED_UP_MS) return before
    const added = { at: now, bytes: await stayingBytes(this.#read, rseId), used }
    this.#added.set(rseId, added)
    return added
  }
}

/** Of what lies at a storage, or comes to, and is not to be deleted. */
async function stayingBytes(read: Executor, rseId: number): Promise<number> {
  const row = await queryOne<{ bytes: number }>(
    read,
    `SELECT CAST(coalesce(sum(dids.bytes), 0) AS bigint) AS bytes FROM replicas JOIN dids ON dids.id = replicas.file_id
      WHERE replicas.rse_id = :rseId AND replicas.tombstone_at IS NULL`,
    { rseId },
  )
  return row?.bytes ?? 0
}

/** What all accounts lock, and have reserved, at each of these storages. */
async function usesByRse(
  read: Executor,
  rseIds: readonly number[],
): Promise<Map<number, { used: number; reserved: number }>> {
  const rows = await query<{ rse_id: number; used: number; reserved: number }>(
    read,
    `SELECT rse_id, CAST(sum(bytes) AS bigint) AS used, CAST(sum(reserved) AS bigint) AS reserved
       FROM account_usage WHERE rse_id ${oneOf(read, 'rses')} GROUP BY rse_id`,
    { rses: encodeRows(rseIds) },
  )
  return new Map(rows.map(({ rse_id, ...uses }) => [rse_id, uses]))
}
