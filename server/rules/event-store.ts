import { reachBindings, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import { type Executor, encodeRows, oneOf, query, recordset } from '../database/sql.ts'
import type { RuleRow } from './store.ts'

/** What happens to a rule. What its state becomes is noted a moment later, and not every coming and going. */
export type RuleEventKind =
  | 'created'
  | 'approved'
  | 'denied'
  | 'updated'
  | 'suspended'
  | 'resumed'
  | 'repair-asked'
  | 'ok'
  | 'stuck'
  | 'replicating'
  | 'replaces'
  | 'replaced'
  | 'expired'
  | 'removed'
  | 'gone'

export interface RuleEvent {
  readonly rule_id: number
  readonly event: RuleEventKind
  /** The account, or who it was; null: Waybill itself. */
  readonly actor: string | null
  readonly details: Readonly<Record<string, unknown>>
}

/** For rules that are there; of others nothing is kept. */
export async function insertEvents(executor: Executor, events: readonly RuleEvent[], now: number): Promise<void> {
  if (events.length === 0) return
  const set = recordset(executor, 'rows', { rule_id: 'bigint', event: 'text', actor: 'text', details: 'text' })
  await query(
    executor,
    `INSERT INTO rule_events (rule_id, vo_id, did_id, at, event, actor, details)
     SELECT rules.id, rules.vo_id, rules.did_id, :now, given.event, given.actor, given.details
       FROM ${set} AS given JOIN rules ON rules.id = given.rule_id WHERE true`,
    { now, rows: encodeRows(events.map(({ details, ...event }) => ({ ...event, details: JSON.stringify(details) }))) },
  )
}

export interface ShownEvent {
  readonly id: number
  readonly rule_id: number
  readonly did: string
  readonly at: number
  readonly event: RuleEventKind
  readonly actor: string | null
  readonly details: string
}

/** In their order; of one rule, or of all rules that a DID has and had. */
export async function listEvents(
  read: Executor,
  sight: Sight,
  filter: {
    readonly ruleId?: number | undefined
    readonly didId?: number | undefined
    readonly after: number
    readonly limit: number
  },
): Promise<ShownEvent[]> {
  const which = filter.ruleId === undefined ? 'rule_events.did_id = :didId' : 'rule_events.rule_id = :ruleId'
  return query(
    read,
    `SELECT rule_events.id, rule_events.rule_id, scopes.name || ':' || dids.name AS did, rule_events.at, rule_events.event,
            rule_events.actor, rule_events.details
       FROM rule_events JOIN dids ON dids.id = rule_events.did_id JOIN scopes ON scopes.id = dids.scope_id
      WHERE ${which} AND rule_events.id > :after${withinReach(read, sight, { vo: 'rule_events.vo_id' })}
      ORDER BY rule_events.id LIMIT :limit`,
    {
      after: filter.after,
      limit: filter.limit,
      ...(filter.ruleId === undefined ? { didId: filter.didId ?? 0 } : { ruleId: filter.ruleId }),
      ...reachBindings(sight),
    },
  )
}

/** Rules whose state is not what was noted last. */
export async function rulesToNote(read: Executor, limit: number) {
  return query<{ id: number; state: RuleRow['state']; error: string | null; locks_stuck: number; updated_at: number }>(
    read,
    'SELECT id, state, error, locks_stuck, updated_at FROM rules WHERE noted_state <> state ORDER BY id LIMIT :limit',
    { limit },
  )
}

/** Those of these rules that are still in that state have it noted. */
export async function noteStates(
  executor: Executor,
  rules: readonly { readonly id: number; readonly state: string }[],
): Promise<number[]> {
  const set = recordset(executor, 'rows', { id: 'bigint', state: 'text' })
  const rows = await query<{ id: number }>(
    executor,
    `UPDATE rules SET noted_state = given.state FROM ${set} AS given
      WHERE rules.id = given.id AND rules.state = given.state AND rules.noted_state <> given.state RETURNING rules.id`,
    { rows: encodeRows(rules.map(({ id, state }) => ({ id, state }))) },
  )
  return rows.map(row => row.id)
}

/** The oldest before then of rules that are gone since before then; of the others those that people did not do. */
export async function oldEvents(read: Executor, before: number, limit: number): Promise<number[]> {
  const rows = await query<{ id: number }>(
    read,
    `SELECT id FROM rule_events WHERE at < :before AND (event IN ('ok', 'stuck', 'replicating')
        OR (NOT EXISTS (SELECT 1 FROM rules WHERE rules.id = rule_events.rule_id)
          AND NOT EXISTS (SELECT 1 FROM rule_events AS last WHERE last.rule_id = rule_events.rule_id AND last.event = 'gone'
                           AND last.at >= :before))) ORDER BY at LIMIT :limit`,
    { before, limit },
  )
  return rows.map(row => row.id)
}

export async function deleteEvents(executor: Executor, ids: readonly number[]): Promise<void> {
  await query(executor, `DELETE FROM rule_events WHERE id ${oneOf(executor, 'ids')}`, { ids: encodeRows(ids) })
}
