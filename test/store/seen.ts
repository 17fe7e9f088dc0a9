import type { LockState, ReplicaState } from '../../shared/domain/rule-state.ts'
import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import type { World } from './world.ts'

const ACTIVE = ACTIVE_STATES.map(state => `'${state}'`).join(', ')
const OPEN = "transfers.state NOT IN ('DONE', 'FAILED', 'CANCELLED')"

/** What stands in the store, by names. A place is `file@rse`, a lock's key `rule file@rse`. */
export interface Seen {
  readonly now: number
  readonly rules: ReadonlyMap<number, SeenRule>
  readonly replicas: ReadonlyMap<string, SeenReplica>
  readonly locks: ReadonlyMap<string, SeenLock>
  readonly choices: readonly SeenChoice[]
  /** By `account@rse`. */
  readonly usage: ReadonlyMap<string, Uses>
  /** Of datasets. */
  readonly totals: ReadonlyMap<string, { readonly files: number; readonly bytes: number }>
}
export interface SeenRule {
  readonly state: string
  readonly stage: string
  readonly ok: number
  readonly replicating: number
  readonly stuck: number
  readonly problems: number
  readonly error: string | null
  readonly replaces: number | null
}
export interface SeenReplica {
  readonly file: string
  readonly rse: string
  readonly state: ReplicaState
  readonly locks: number
  readonly tombstone: boolean
  /** It was registered, and stays while it is there. */
  readonly kept: boolean
  /** Transfers that have not ended; whether one has a source, a worker has it, and is asked to leave it. */
  readonly open: number
  readonly coming: boolean
  readonly held: boolean
  readonly cancelled: boolean
}
export interface SeenLock {
  readonly rule: number
  readonly file: string
  readonly rse: string
  readonly state: LockState
}
export interface SeenChoice {
  readonly rule: number
  readonly unit: string
  /** Null: each file of it anywhere. */
  readonly rse: string | null
  readonly reserved: number
}
export interface Uses {
  readonly files: number
  readonly bytes: number
  readonly reserved: number
}

/** What stands in the store, for the model to judge. */
export async function see(world: World): Promise<Seen> {
  const rules = await world.rows<SeenRule & { id: number }>(
    `SELECT id, state, stage, locks_ok AS ok, locks_replicating AS replicating, locks_stuck AS stuck, problems, error, replaces FROM rules`,
  )
  const replicas = await world.rows<{
    file: string
    rse: string
    state: ReplicaState
    locks: number
    tombstone: number | null
    kept: number | boolean
    open: number
    coming: number
    held: number
    cancelled: number
  }>(
    `SELECT dids.name AS file, rses.name AS rse, replicas.state, lock_count AS locks, tombstone_at AS tombstone, replicas.kept,
            count(transfers.id) AS open,
            coalesce(sum(CASE WHEN transfers.state <> 'WAITING' THEN 1 ELSE 0 END), 0) AS coming, coalesce(sum(CASE WHEN transfers.state IN (${ACTIVE}) THEN 1 ELSE 0 END), 0) AS held,
            coalesce(sum(CASE WHEN cancel_requested THEN 1 ELSE 0 END), 0) AS cancelled
       FROM replicas JOIN dids ON dids.id = replicas.file_id JOIN rses ON rses.id = replicas.rse_id
       LEFT JOIN transfers ON transfers.replica_id = replicas.id AND ${OPEN}
      GROUP BY replicas.id, dids.name, rses.name, replicas.state, lock_count, tombstone_at, replicas.kept`,
  )
  const locks = await world.rows<{ rule: number; file: string; rse: string; state: LockState }>(
    `SELECT rule_id AS rule, dids.name AS file, rses.name AS rse, locks.state FROM locks
       JOIN replicas ON replicas.id = replica_id JOIN dids ON dids.id = replicas.file_id JOIN rses ON rses.id = replicas.rse_id`,
  )
  const choices = await world.rows<SeenChoice>(
    `SELECT rule_id AS rule, dids.name AS unit, rses.name AS rse, reserved FROM rule_choices
       JOIN dids ON dids.id = dataset_id LEFT JOIN rses ON rses.id = rse_id ORDER BY rule_choices.id`,
  )
  const usage = await world.rows<Uses & { account: string; rse: string }>(
    `SELECT accounts.name AS account, rses.name AS rse, files, bytes, reserved FROM account_usage
       JOIN accounts ON accounts.id = account_id JOIN rses ON rses.id = rse_id`,
  )
  const totals = await world.rows<{ name: string; files: number; bytes: number }>(
    "SELECT name, files, bytes FROM dids WHERE type = 'DATASET'",
  )
  return {
    now: world.clock.now(),
    rules: new Map(rules.map(({ id, ...rule }) => [id, rule])),
    replicas: new Map(
      replicas.map(({ file, rse, ...row }): [string, SeenReplica] => [
        `${file}@${rse}`,
        {
          ...row,
          file,
          rse,
          tombstone: row.tombstone !== null,
          kept: Boolean(row.kept),
          coming: row.coming > 0,
          held: row.held > 0,
          cancelled: row.cancelled > 0,
        },
      ]),
    ),
    locks: new Map(locks.map((lock): [string, SeenLock] => [`${lock.rule} ${lock.file}@${lock.rse}`, lock])),
    choices,
    usage: new Map(usage.map(({ account, rse, ...uses }) => [`${account}@${rse}`, uses])),
    totals: new Map(totals.map(({ name, ...row }) => [name, row])),
  }
}
