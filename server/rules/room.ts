import type { Clock } from '../../shared/runtime/clock.ts'
import { type Executor, query, queryOne } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'

/** How long what lies at a storage is as good as added up: it reads all of its replicas. Milliseconds. */
const ADDED_UP_MS = 60_000

/**
 * What may still come to the storages whose capacity is known. What nobody asks for any more takes no room: the reaper makes it. A
 * storage that is full all the same refuses the file, and is held (docs/scheduling.md).
 */
export class Rooms {
  readonly #read: Executor
  readonly #clock: Clock
  readonly #added = new Map<number, { at: number; bytes: number }>()

  constructor(read: Executor, clock: Clock) {
    this.#read = read
    this.#clock = clock
  }

  /** Bytes by storage; one that is absent has room for anything. */
  async left(rses: readonly Rse[]): Promise<Map<number, number>> {
    const known = rses.filter(rse => rse.capacityBytes !== null)
    if (known.length === 0) return new Map()
    const reserved = await reservedBytes(this.#read)
    const left = new Map<number, number>()
    for (const { id, capacityBytes, minFreeBytes } of known) {
      const taken = (await this.#staying(id)) + (reserved.get(id) ?? 0)
      left.set(id, (capacityBytes ?? 0) - (minFreeBytes ?? 0) - taken)
    }
    return left
  }

  async #staying(rseId: number): Promise<number> {
    const now = this.#clock.monotonic()
    const before = this.#added.get(rseId)
    if (before !== undefined && now - before.at < ADDED_UP_MS) return before.bytes
    const bytes = await stayingBytes(this.#read, rseId)
    this.#added.set(rseId, { at: now, bytes })
    return bytes
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

async function reservedBytes(read: Executor): Promise<Map<number, number>> {
  const rows = await query<{ rse_id: number; bytes: number }>(
    read,
    'SELECT rse_id, CAST(sum(reserved) AS bigint) AS bytes FROM account_usage WHERE reserved > 0 GROUP BY rse_id',
  )
  return new Map(rows.map(row => [row.rse_id, row.bytes]))
}
