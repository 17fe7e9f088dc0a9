import { WaybillError } from '../../shared/domain/errors.ts'
import { type Executor, isSqlite, query, queryOne } from '../database/sql.ts'
import type { Rse } from './directory.ts'
import { resolveExpression } from './expression.ts'

/**
 * Removes a storage that nothing was ever at: its settings, protocols, attributes and links, with what was learnt of them. Whatever was
 * kept there once left directories, tokens and attempts, which are history and name the storage for ever. `ofVo`: all storages of its
 * VO. Throws 409 RSE_IN_USE: the transaction is given up then.
 */
export async function removeRse(executor: Executor, rse: Rse, ofVo: readonly Rse[]): Promise<void> {
  const id = { id: rse.id }
  // So that nobody begins to use it meanwhile: against references a weaker lock does not help.
  if (!isSqlite(executor)) await query(executor, 'SELECT id FROM rses WHERE id = :id FOR UPDATE', id)
  for (const table of ['rse_attributes', 'rse_protocols', 'destination_health', 'source_set_members']) {
    await query(executor, `DELETE FROM ${table} WHERE rse_id = :id`, id)
  }
  await query(executor, 'DELETE FROM account_usage WHERE rse_id = :id AND files = 0 AND bytes = 0 AND reserved = 0', id)
  const uses = [...(await usesOf(executor, rse.id)), ...(await expressionsThatNeed(executor, rse, ofVo))]
  if (uses.length > 0) throw inUse(rse, uses)
  const links = 'SELECT id FROM links WHERE source_rse_id = :id OR destination_rse_id = :id'
  for (const table of ['link_health', 'link_minutes', 'link_tuning', 'link_decisions']) {
    await query(executor, `DELETE FROM ${table} WHERE link_id IN (${links})`, id)
  }
  await query(executor, 'DELETE FROM links WHERE source_rse_id = :id OR destination_rse_id = :id', id)
  await query(executor, 'DELETE FROM vo_rses WHERE rse_id = :id', id)
  await query(executor, 'DELETE FROM rses WHERE id = :id', id)
}

/** Every replica, transfer, attempt, import and task of a storage has, or had, a directory there, which stays. */
const USES = {
  replicas: 'directories JOIN replicas ON replicas.directory_id = directories.id WHERE directories.rse_id',
  transfers:
    'directories JOIN replicas ON replicas.directory_id = directories.id JOIN transfers ON transfers.replica_id = replicas.id WHERE directories.rse_id',
  'what was there once': 'directories WHERE rse_id',
  'choices of rules': 'rule_choices WHERE rse_id',
  'problems of rules': 'rule_problems WHERE rse_id',
  'what accounts use': 'account_usage WHERE rse_id',
  tokens: 'grants WHERE rse_id',
} as const

async function usesOf(executor: Executor, id: number): Promise<string[]> {
  const uses: string[] = []
  for (const [use, rows] of Object.entries(USES)) {
    const found = await queryOne(executor, `SELECT 1 AS n FROM ${rows} = :id LIMIT 1`, { id })
    if (found !== undefined) uses.push(use)
  }
  return uses
}

/** Those of rules and limits that would name something unknown, or nothing, without the storage. */
async function expressionsThatNeed(executor: Executor, rse: Rse, ofVo: readonly Rse[]): Promise<string[]> {
  const rows = await query<{ whose: string; expression: string }>(
    executor,
    `SELECT 'rule' AS whose, expression FROM rules WHERE vo_id = :voId AND stage <> 'REMOVING'
      UNION SELECT 'rule', source_expression FROM rules WHERE vo_id = :voId AND stage <> 'REMOVING' AND source_expression IS NOT NULL
      UNION SELECT 'limit', expression FROM account_limits WHERE vo_id = :voId`,
    { voId: rse.voId },
  )
  const others = ofVo.filter(other => other.id !== rse.id)
  return rows
    .filter(({ expression }) => resolves(expression, ofVo) && !resolves(expression, others))
    .slice(0, MOST_NAMED)
    .map(({ whose, expression }) => `a ${whose}'s expression ${expression}`)
}

const MOST_NAMED = 5

function resolves(expression: string, rses: readonly Rse[]): boolean {
  try {
    return resolveExpression(expression, [...rses]).length > 0
  } catch {
    return false
  }
}

function inUse({ name }: Rse, uses: readonly string[]): WaybillError {
  const advice = `close it instead: waybill rse set ${name} --read off --write off --delete off`
  return new WaybillError('RSE_IN_USE', `${name} stays for ${uses.join(', ')}: ${advice}`, {
    status: 409,
    field: 'rse',
  })
}
