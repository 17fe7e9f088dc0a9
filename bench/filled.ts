import type { Database } from '../server/database/database.ts'
import { type Executor, isSqlite, query, queryOne } from '../server/database/sql.ts'
import type { Rse } from '../server/storages/directory.ts'
import type { World } from '../test/store/world.ts'

/**
 * Tables filled inside the database, as the product would have left them: through it, the sizes of the benches would take
 * hours. One transaction each, keys in order.
 */
const FILES_PER_DATASET = 1_000

export interface Filled {
  readonly scope: string
  readonly files: number
  readonly datasets: number
  readonly firstDataset: number
  readonly firstFile: number
}

/** Files AVAILABLE at one storage, in datasets `SCOPE:d0`, `SCOPE:d1`, ... of 1,000, all of them in the container `SCOPE:all`. */
export async function fillCatalogue(world: World, at: string, scope: string, files: number): Promise<Filled> {
  const rse = await world.rse(at)
  const filled = await world.db.write(executor => addCatalogue(executor, world, rse, scope, files))
  await refreshStatistics(world.db)
  return filled
}

/**
 * The same, and a queued transfer of each file to another storage, in bundles that have their grants. `alsoAt`: another
 * storage that has the files.
 */
export async function fillQueue(
  world: World,
  ends: { source: string; destination: string; alsoAt?: string },
  scope: string,
  files: number,
): Promise<void> {
  const [source, destination] = [await world.rse(ends.source), await world.rse(ends.destination)]
  const other = ends.alsoAt === undefined ? undefined : await world.rse(ends.alsoAt)
  await world.db.write(async executor => {
    const filled = await addCatalogue(executor, world, source, scope, files)
    if (other !== undefined) await addReplicas(executor, filled, other, 'AVAILABLE')
    await addReplicas(executor, filled, destination, 'COPYING')
    await addRule(executor, world, filled, destination)
    await addTransfers(executor, world, filled, source, destination)
  })
  await world.grantAll()
  await refreshStatistics(world.db)
}

async function addCatalogue(
  executor: Executor,
  { voId, accountId }: World,
  rse: Rse,
  scope: string,
  files: number,
): Promise<Filled> {
  await query(executor, `INSERT INTO scopes (vo_id, name) VALUES (${voId}, '${scope}')`)
  const datasets = Math.ceil(files / FILES_PER_DATASET)
  const least = async (type: string, count: number, name: string, held: string): Promise<number> => {
    await query(
      executor,
      `INSERT INTO dids (scope_id, name, type, bytes, files, is_open, account_id, created_at) ${series(count)}
       SELECT scopes.id, ${name}, '${type}', 1000 * (${held}), ${held}, ${type !== 'FILE'}, ${accountId}, 0
         FROM n JOIN scopes ON scopes.name = '${scope}' ORDER BY i`,
    )
    const keys = await queryOne<{ least: number; most: number }>(
      executor,
      `SELECT min(dids.id) AS least, max(dids.id) AS most FROM dids JOIN scopes ON scopes.id = dids.scope_id
        WHERE scopes.name = '${scope}' AND dids.type = '${type}'`,
    )
    if (keys === undefined || keys.most - keys.least + 1 !== count) throw new Error('the keys are not in order')
    return keys.least
  }
  const container = await least('CONTAINER', 1, `'all'`, '0')
  const lastHolds = files - (datasets - 1) * FILES_PER_DATASET
  const holds = `CASE WHEN i = ${datasets - 1} THEN ${lastHolds} ELSE ${FILES_PER_DATASET} END`
  const firstDataset = await least('DATASET', datasets, `'d' || i`, holds)
  const firstFile = await least('FILE', files, `'d' || ${DATASET} || '/f' || ${FILE}`, '1')
  const attach = (count: number, parent: string, firstChild: number) =>
    query(
      executor,
      `INSERT INTO contents (parent_id, child_id) ${series(count)} SELECT ${parent}, ${firstChild} + i FROM n ORDER BY i`,
    )
  await attach(datasets, `${container}`, firstDataset)
  await attach(files, `${firstDataset} + ${DATASET}`, firstFile)
  const filled = { scope, files, datasets, firstDataset, firstFile }
  await addReplicas(executor, filled, rse, 'AVAILABLE')
  return filled
}

/** Where the layout `dataset` puts them. */
async function addReplicas(executor: Executor, filled: Filled, rse: Rse, state: string): Promise<void> {
  const path = `'${rse.prefix}/${filled.scope}/d'`
  await query(
    executor,
    `INSERT INTO directories (rse_id, path) ${series(filled.datasets)} SELECT ${rse.id}, ${path} || i FROM n ORDER BY i`,
  )
  await query(
    executor,
    `INSERT INTO replicas (file_id, rse_id, directory_id, name, state, lock_count, updated_at) ${series(filled.files)}
     SELECT ${filled.firstFile} + i, ${rse.id}, directories.id, 'f' || ${FILE}, '${state}', 0, 0
       FROM n JOIN directories ON directories.rse_id = ${rse.id} AND directories.path = ${path} || ${DATASET} ORDER BY i`,
  )
}

/** On the container, expanded: without a lock nobody would want the copies. */
async function addRule(
  executor: Executor,
  { voId, accountId }: World,
  filled: Filled,
  { id, name }: Rse,
): Promise<void> {
  const rule = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO rules (vo_id, did_id, account_id, copies, expression, activity, priority, state, stage, cursor_choice,
                        cursor_file, locks_ok, locks_replicating, locks_stuck, problems, repairs, created_at, updated_at)
     SELECT ${voId}, parent_id, ${accountId}, 1, '${name}', 'bench', 3, 'REPLICATING', 'EXPANDED', 0, 0, 0, ${filled.files},
            0, 0, 0, 0, 0 FROM contents WHERE child_id = ${filled.firstDataset} RETURNING id`,
  )
  const own = `rse_id = ${id} AND file_id >= ${filled.firstFile} AND file_id < ${filled.firstFile + filled.files}`
  await query(
    executor,
    `INSERT INTO locks (rule_id, replica_id, state) SELECT ${rule?.id}, id, 'REPLICATING' FROM replicas WHERE ${own} ORDER BY id`,
  )
  await query(executor, `UPDATE replicas SET lock_count = 1 WHERE ${own}`)
}

/** A bundle for each dataset. */
async function addTransfers(
  executor: Executor,
  { voId, accountId }: World,
  { firstFile, files }: Filled,
  source: Rse,
  destination: Rse,
): Promise<void> {
  const pairs = `replicas AS own JOIN replicas AS other ON other.file_id = own.file_id AND other.rse_id = ${source.id}
      JOIN links ON links.source_rse_id = ${source.id} AND links.destination_rse_id = ${destination.id}
     WHERE own.rse_id = ${destination.id} AND own.file_id >= ${firstFile} AND own.file_id < ${firstFile + files}`
  await query(
    executor,
    `INSERT INTO bundles (link_id, vo_id, source_directory_id, destination_directory_id, priority, activity, account_id,
                          has_work, ready, served_at)
     SELECT DISTINCT links.id, ${voId}, other.directory_id, own.directory_id, 3, 'bench', ${accountId}, true, false, 0 FROM ${pairs}`,
  )
  await query(
    executor,
    `INSERT INTO transfers (replica_id, source_replica_id, bundle_id, link_id, source_rse_id, destination_rse_id, vo_id,
                            account_id, activity, priority, bytes, state, attempts, not_before, fence, bytes_done,
                            cancel_requested, created_at, updated_at)
     SELECT pairs.own_id, pairs.other_id, bundles.id, pairs.link_id, ${source.id}, ${destination.id}, ${voId}, ${accountId}, 'bench', 3,
            1000, 'QUEUED', 0, 0, 0, 0, false, 0, 0
       FROM (SELECT own.id AS own_id, other.id AS other_id, links.id AS link_id, own.directory_id AS own_directory_id,
                    other.directory_id AS other_directory_id FROM ${pairs}) AS pairs
       JOIN bundles ON bundles.link_id = pairs.link_id AND bundles.source_directory_id = pairs.other_directory_id
        AND bundles.destination_directory_id = pairs.own_directory_id ORDER BY pairs.own_id`,
  )
  await query(
    executor,
    `UPDATE links SET has_work = true WHERE source_rse_id = ${source.id} AND destination_rse_id = ${destination.id}`,
  )
}

const DATASET = `(i / ${FILES_PER_DATASET})`
const FILE = `(i % ${FILES_PER_DATASET})`

/** Begins an INSERT's SELECT from `n`: `i` goes from 0 to `count` - 1. */
function series(count: number): string {
  return `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${count})`
}

/** As autovacuum would within a minute. SQLite is run without statistics. */
async function refreshStatistics({ read }: Database): Promise<void> {
  if (!isSqlite(read)) await query(read, 'VACUUM ANALYZE')
}
