import type { LockState } from '../../shared/domain/rule-state.ts'
import { reachBindings, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import { type Executor, query } from '../database/sql.ts'
import { VIA } from '../transfers/hop-store.ts'
import type { RuleRow } from './store.ts'

/** A rule as people see it. */
export interface ShownRule extends RuleRow {
  did: string
  account: string
  /** When what is stuck is tried again; null: it has no date yet, or nothing is stuck. */
  repair_at: number | null
  /** The rule that takes its place when that is OK. */
  replaced_by: number | null
}

const SHOWN = `SELECT rules.*,
  (SELECT min(other.id) FROM rules AS other WHERE other.replaces = rules.id AND other.stage <> 'REMOVING') AS replaced_by, scopes.name || ':' || dids.name AS did, accounts.name AS account
  FROM rules JOIN dids ON dids.id = rules.did_id JOIN scopes ON scopes.id = dids.scope_id
  JOIN accounts ON accounts.id = rules.account_id`

export async function showRule(read: Executor, id: number): Promise<ShownRule | undefined> {
  return (await query<ShownRule>(read, `${SHOWN} WHERE rules.id = :id AND rules.stage <> 'REMOVING'`, { id }))[0]
}

export async function listRules(
  read: Executor,
  sight: Sight,
  filter: {
    didId?: number | undefined
    account?: string | undefined
    state?: string | undefined
    after: number
    limit: number
  },
): Promise<ShownRule[]> {
  return query<ShownRule>(
    read,
    `${SHOWN} WHERE rules.id > :after AND rules.stage <> 'REMOVING' AND (:didId = 0 OR rules.did_id = :didId)
        AND (:account = '' OR accounts.name = :account) AND (:state = '' OR rules.state = :state)${withinReach(read, sight, { vo: 'rules.vo_id' })}
      ORDER BY rules.id LIMIT :limit`,
    {
      after: filter.after,
      limit: filter.limit,
      didId: filter.didId ?? 0,
      account: filter.account ?? '',
      state: filter.state ?? '',
      ...reachBindings(sight),
    },
  )
}

export interface Place {
  readonly rse_id: number
  readonly state: LockState
  readonly files: number
  readonly bytes: number
}

/** Where a rule has its locks. Reads all of them: some seconds for millions. */
export async function placesOf(read: Executor, ruleId: number): Promise<Place[]> {
  return query(
    read,
    `SELECT replicas.rse_id, locks.state, count(*) AS files, CAST(sum(dids.bytes) AS bigint) AS bytes FROM locks
       JOIN replicas ON replicas.id = locks.replica_id JOIN dids ON dids.id = replicas.file_id
      WHERE locks.rule_id = :ruleId GROUP BY replicas.rse_id, locks.state`,
    { ruleId },
  )
}

export interface ShownProblem {
  did: string
  rse_id: number
  code: string
  message: string
}

/** A lock that is stuck, and what is known of why. */
export interface StuckLock {
  readonly rule_id: number
  readonly did: string
  readonly rse_id: number
  /** What its replica was found to be, when it is BAD, or was lost, now. */
  readonly fault_code: string | null
  readonly fault_message: string | null
  readonly is_bad: number | boolean
  /** It was registered, imported or uploaded, and no person has said that it is BAD. */
  readonly unconfirmed: number | boolean
  /** Some other storage has a good copy. */
  readonly good: number | boolean
  /** Why its last transfer was given up without an attempt, and over which storage it should have gone. */
  readonly reason: string | null
  readonly via: string | null
  /** Of the last attempt that failed. */
  readonly code: string | null
  readonly message: string | null
}

/** The first locks that are stuck. */
export async function stuckLocksOf(read: Executor, ruleId: number, limit: number): Promise<StuckLock[]> {
  return query<StuckLock>(
    read,
    `SELECT locks.rule_id, scopes.name || ':' || dids.name AS did, replicas.rse_id, faults.code AS fault_code, faults.message AS fault_message,
            replicas.state = 'BAD' AS is_bad, (replicas.kept AND faults.account_id IS NULL) AS unconfirmed,
            EXISTS (SELECT 1 FROM replicas AS other WHERE other.file_id = replicas.file_id AND other.state = 'AVAILABLE') AS good,
            CASE transfers.state WHEN 'FAILED' THEN transfers.reason END AS reason, ${VIA} AS via, attempts.code, attempts.message
       FROM locks JOIN replicas ON replicas.id = locks.replica_id
       JOIN dids ON dids.id = replicas.file_id JOIN scopes ON scopes.id = dids.scope_id
       LEFT JOIN replica_faults AS faults ON faults.replica_id = replicas.id AND faults.over_at IS NULL
       LEFT JOIN transfers ON transfers.id = (SELECT max(id) FROM transfers WHERE transfers.replica_id = replicas.id)
       LEFT JOIN attempts ON attempts.id = (SELECT max(attempts.id) FROM attempts
         JOIN transfers ON transfers.id = attempts.transfer_id
        WHERE transfers.replica_id = replicas.id AND attempts.code IS NOT NULL)
      WHERE locks.rule_id = :ruleId AND locks.state = 'STUCK' ORDER BY locks.replica_id LIMIT :limit`,
    { ruleId, limit },
  )
}

/** Files that could get no lock. */
export async function problemsOf(read: Executor, ruleId: number, limit: number): Promise<ShownProblem[]> {
  return query<ShownProblem>(
    read,
    `SELECT scopes.name || ':' || dids.name AS did, rule_problems.rse_id, rule_problems.code, rule_problems.message
       FROM rule_problems JOIN dids ON dids.id = rule_problems.file_id JOIN scopes ON scopes.id = dids.scope_id
      WHERE rule_problems.rule_id = :ruleId ORDER BY rule_problems.file_id LIMIT :limit`,
    { ruleId, limit },
  )
}
