import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { type ColumnType, type Executor, encodeRows, query, queryOne, recordset, stateList } from '../database/sql.ts'
import { type EndedAttempt, type Health, type HealthSide, HOLD, healthAfter, isEvidence, mayFail } from './health.ts'

const ACTIVE = stateList(ACTIVE_STATES)

export interface HealthColumns {
  since: number
  failed_at: number
  gave_at: number
  failures: number
  successes: number
  confirmed: number | boolean
  session_id: number
  holds: number
  held_until: number
  code: string
  message: string
}

export interface LinkHealthRow extends HealthColumns {
  link_id: number
}

export interface DestinationHealthRow extends HealthColumns {
  vo_id: number
  vo: string
  rse_id: number
}

const COLUMNS = {
  since: 'bigint',
  failed_at: 'bigint',
  gave_at: 'bigint',
  failures: 'bigint',
  successes: 'bigint',
  confirmed: 'boolean',
  session_id: 'bigint',
  holds: 'bigint',
  held_until: 'bigint',
  code: 'text',
  message: 'text',
} as const

type Key = Readonly<Record<string, number>>

/** Where the health of sources, or of destinations, is kept, and by what. */
interface Register {
  readonly side: HealthSide
  readonly table: 'link_health' | 'destination_health'
  readonly columns: readonly string[]
  keyOf(attempt: EndedAttempt): Key
  /** The columns of transfers that the key stands for. */
  readonly ofTransfers: readonly string[]
}

const LINKS: Register = {
  side: 'SOURCE',
  table: 'link_health',
  columns: ['link_id'],
  keyOf: ({ linkId }) => ({ link_id: linkId }),
  ofTransfers: ['link_id'],
}
const DESTINATIONS: Register = {
  side: 'DESTINATION',
  table: 'destination_health',
  columns: ['vo_id', 'rse_id'],
  keyOf: ({ voId, destinationId }) => ({ vo_id: voId, rse_id: destinationId }),
  ofTransfers: ['vo_id', 'destination_rse_id'],
}

const FAILING = 'failures + holds > 0'

/** The links whose source fails, or has failed and is on trial. Few rows, mostly none. */
export async function failingLinks(executor: Executor): Promise<LinkHealthRow[]> {
  return query(executor, `SELECT * FROM link_health WHERE ${FAILING} ORDER BY link_id`)
}

/** The storages that take nothing of a VO, or have failed and are on trial. */
export async function failingDestinations(executor: Executor): Promise<DestinationHealthRow[]> {
  return query(
    executor,
    `SELECT destination_health.*, vos.name AS vo FROM destination_health JOIN vos ON vos.id = vo_id
      WHERE ${FAILING} ORDER BY vo_id, rse_id`,
  )
}

export function healthOf(row: HealthColumns): Health {
  const { since, failed_at, gave_at, failures, successes, confirmed, session_id, holds, held_until, code, message } =
    row
  const counts = { since, failures, successes, holds, code, message, confirmed: Boolean(confirmed) }
  return { ...counts, failedAt: failed_at, gaveAt: gave_at, sessionId: session_id, heldUntil: held_until }
}

/** What is known to fail, from a look without locks: where nothing does, a success changes nothing. */
export interface Failing {
  readonly links: ReadonlySet<string>
  readonly destinations: ReadonlySet<string>
}

export async function whatFails(read: Executor): Promise<Failing> {
  const keys = (rows: readonly object[], register: Register): Set<string> =>
    new Set(rows.map(row => textOf(register, row)))
  return {
    links: keys(await failingLinks(read), LINKS),
    destinations: keys(await failingDestinations(read), DESTINATIONS),
  }
}

/** Held from now on, as their keys' columns; and whether something may do more than before. */
export interface HealthChanges {
  readonly held: readonly { readonly key: Key; readonly code: string }[]
  readonly freed: boolean
}

/** Takes what attempts say of the sources of their links, and of their destinations. */
export async function judgeStorages(
  executor: Executor,
  attempts: readonly EndedAttempt[],
  failing: Failing,
  now: number,
): Promise<HealthChanges> {
  const links = await judge(executor, LINKS, attempts, failing.links, now)
  const destinations = await judge(executor, DESTINATIONS, attempts, failing.destinations, now)
  return { held: [...links.held, ...destinations.held], freed: links.freed || destinations.freed }
}

async function judge(
  executor: Executor,
  register: Register,
  attempts: readonly EndedAttempt[],
  failing: ReadonlySet<string>,
  now: number,
): Promise<HealthChanges> {
  const subjects = subjectsOf(register, attempts).filter(({ text, own }) => failing.has(text) || mayFail(own))
  if (subjects.length === 0) return { held: [], freed: false }
  const keys = subjects.map(({ key }) => key)
  const rows = new Map((await lockHealth(executor, register, keys, now)).map(row => [textOf(register, row), row]))
  const none = await isSoleWorker(executor)
  const moving = none ? new Map<string, number[]>() : await movingSessions(executor, register, keys)
  const changed = subjects.map(({ key, text, own }) => {
    const row = rows.get(text)
    const before = row === undefined || row.failures + row.holds === 0 ? undefined : healthOf(row)
    const others = { none, moving: moving.get(text) ?? [] }
    return { key, before, after: healthAfter(before, own, register.side, others, now) }
  })
  await storeHealth(executor, register, changed)
  return {
    held: changed.flatMap(({ key, before, after }) =>
      after !== undefined && after.heldUntil > (before?.heldUntil ?? 0) ? [{ key, code: after.code }] : [],
    ),
    freed: changed.some(({ before, after }) => (before?.heldUntil ?? 0) > 0 && after?.successes !== before?.successes),
  }
}

interface Subject {
  readonly key: Key
  readonly text: string
  readonly own: readonly EndedAttempt[]
}

function subjectsOf(register: Register, attempts: readonly EndedAttempt[]): Subject[] {
  const subjects = new Map<string, Subject>()
  for (const attempt of attempts.filter(ended => isEvidence(ended, register.side))) {
    const key = register.keyOf(attempt)
    const text = textOf(register, key)
    subjects.set(text, { key, text, own: [...(subjects.get(text)?.own ?? []), attempt] })
  }
  return [...subjects.values()]
}

function textOf({ columns }: Register, row: object): string {
  return columns.map(column => (row as Key)[column]).join(' ')
}

/** A row for each of these, locked in the order of their keys: whoever judges them too waits, and finds what this one left. */
async function lockHealth(
  executor: Executor,
  { table, columns }: Register,
  keys: readonly Key[],
  now: number,
): Promise<HealthColumns[]> {
  const key = columns.join(', ')
  const [first] = columns
  return query(
    executor,
    `INSERT INTO ${table} (${key}, since, failed_at, gave_at, failures, successes, confirmed, session_id, holds, held_until, code, message)
     SELECT ${key}, :now, :now, 0, 0, 0, false, 0, 0, 0, '', ''
       FROM ${recordset(executor, 'keys', bigints(columns))} AS given WHERE true ORDER BY ${key}
     ON CONFLICT (${key}) DO UPDATE SET ${first} = excluded.${first} RETURNING *`,
    { now, keys: encodeRows(keys) },
  )
}

async function storeHealth(
  executor: Executor,
  { table, columns }: Register,
  changed: readonly { key: Key; after: Health | undefined }[],
): Promise<void> {
  const set = (more: Readonly<Record<string, ColumnType>>) =>
    recordset(executor, 'rows', { ...bigints(columns), ...more })
  const well = changed.filter(({ after }) => after === undefined).map(({ key }) => key)
  if (well.length > 0) {
    const key = columns.join(', ')
    await query(executor, `DELETE FROM ${table} WHERE (${key}) IN (SELECT ${key} FROM ${set({})} AS given)`, {
      rows: encodeRows(well),
    })
  }
  const rows = changed.flatMap(({ key, after }) => {
    if (after === undefined) return []
    const { failedAt, gaveAt, sessionId, heldUntil, ...rest } = after
    return [{ ...key, failed_at: failedAt, gave_at: gaveAt, session_id: sessionId, held_until: heldUntil, ...rest }]
  })
  if (rows.length === 0) return
  const sets = Object.keys(COLUMNS).map(column => `${column} = given.${column}`)
  const same = columns.map(column => `${table}.${column} = given.${column}`)
  await query(
    executor,
    `UPDATE ${table} SET ${sets.join(', ')} FROM ${set(COLUMNS)} AS given WHERE ${same.join(' AND ')}`,
    {
      rows: encodeRows(rows),
    },
  )
}

/** By key: the sessions that have a transfer there of which bytes have come. */
async function movingSessions(
  executor: Executor,
  register: Register,
  keys: readonly Key[],
): Promise<Map<string, number[]>> {
  const { columns, ofTransfers } = register
  const named = columns.map((column, i) => `${ofTransfers[i]} AS ${column}`).join(', ')
  const rows = await query<{ session_id: number }>(
    executor,
    `SELECT DISTINCT ${named}, session_id FROM transfers
      WHERE state IN (${ACTIVE}) AND session_id IS NOT NULL AND bytes_done > 0
        AND (${ofTransfers.join(', ')}) IN (SELECT ${columns.join(', ')} FROM ${recordset(executor, 'keys', bigints(columns))} AS given)`,
    { keys: encodeRows(keys) },
  )
  const found = new Map<string, number[]>()
  for (const row of rows) {
    const text = textOf(register, row)
    found.set(text, [...(found.get(text) ?? []), row.session_id])
  }
  return found
}

function bigints(columns: readonly string[]): Record<string, ColumnType> {
  return Object.fromEntries(columns.map(column => [column, 'bigint']))
}

/** Who is drained takes nothing new: there is nobody else then who could see it otherwise. */
async function isSoleWorker(executor: Executor): Promise<boolean> {
  const row = await queryOne<{ count: number }>(
    executor,
    `SELECT count(*) AS count FROM sessions JOIN workers USING (issuer, client, worker)
      WHERE ended_at IS NULL AND drained_at IS NULL`,
  )
  return (row?.count ?? 0) < 2
}

/** What has neither failed nor been held for long is as any other. */
export async function forgetHealth(executor: Executor, now: number): Promise<void> {
  const since = (time: string): string => `failed_at < :${time} AND held_until < :${time}`
  for (const { table } of [LINKS, DESTINATIONS]) {
    await query(executor, `DELETE FROM ${table} WHERE ${since('long')} OR (successes > 0 AND ${since('recent')})`, {
      long: now - HOLD.keptFor,
      recent: now - HOLD.forgetAfter,
    })
  }
}
