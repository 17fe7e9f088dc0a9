import { ERROR_CATALOGUE } from '../../shared/domain/error-catalogue.ts'
import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import type { World } from './world.ts'

const ACTIVE = ACTIVE_STATES.map(state => `'${state}'`).join(', ')
const UNCOUNTED = Object.entries(ERROR_CATALOGUE)
  .flatMap(([code, { retry }]) => (retry === 'uncounted' ? `'${code}'` : []))
  .join(', ')
const OPEN = "state NOT IN ('DONE', 'FAILED', 'CANCELLED')"
const count = (state: string): string => `(SELECT count(*) FROM locks WHERE rule_id = rules.id AND state = '${state}')`

/** Of `rules`: it is to stay, and has let go of all that was detached. */
const SHRUNK = `rules.stage <> 'REMOVING' AND NOT EXISTS (SELECT 1 FROM detached WHERE detached.rule_id = rules.id)`
/** The collections at or below the DIDs of rules, and those DIDs themselves. */
const BELOW = `WITH RECURSIVE below (rule, id) AS (SELECT id, did_id FROM rules
  UNION SELECT below.rule, contents.child_id FROM below JOIN contents ON contents.parent_id = below.id
    JOIN dids ON dids.id = contents.child_id AND dids.type <> 'FILE')`
/** Of `rules` and a file at a storage in `replicas`. */
const UNCHOSEN = `NOT EXISTS (SELECT 1 FROM rule_choices WHERE rule_choices.rule_id = rules.id
  AND (rule_choices.rse_id = replicas.rse_id OR rule_choices.rse_id IS NULL) AND (rule_choices.dataset_id = replicas.file_id OR EXISTS (SELECT 1 FROM contents
    WHERE contents.parent_id = rule_choices.dataset_id AND contents.child_id = replicas.file_id)))`

/** What must hold between any two transactions: a sentence, and a query that finds what breaks it. */
const INVARIANTS: Readonly<Record<string, string>> = {
  "a rule's counters are those of its locks": `SELECT id FROM rules WHERE stage <> 'REMOVING' AND
    (locks_ok <> ${count('OK')} OR locks_replicating <> ${count('REPLICATING')} OR locks_stuck <> ${count('STUCK')})`,
  'a rule that has work says so': `SELECT id FROM rules WHERE stage = 'EXPANDED' AND (
    EXISTS (SELECT 1 FROM rule_parts WHERE rule_id = rules.id) OR EXISTS (SELECT 1 FROM rule_choices WHERE rule_id = rules.id AND todo))`,
  'a rule that is to choose knows for what': `SELECT id FROM rules WHERE stage = 'CHOOSING'
    AND cursor_choice = 0 AND NOT EXISTS (SELECT 1 FROM rule_parts WHERE rule_id = rules.id AND NOT later)`,
  'what a rule that has let go of all that was detached has chosen for is at or below its DID': `${BELOW}
    SELECT rule_choices.id FROM rule_choices JOIN rules ON rules.id = rule_id
    WHERE ${SHRUNK} AND NOT EXISTS (SELECT 1 FROM below WHERE below.rule = rule_id AND below.id = dataset_id)`,
  'an expanded rule has chosen for every dataset at or below its DID, or says why not': `${BELOW}
    SELECT rules.id FROM rules JOIN below ON below.rule = rules.id JOIN dids ON dids.id = below.id AND dids.type = 'DATASET'
    WHERE rules.stage = 'EXPANDED' AND rules.error IS NULL AND rules.grouping <> 'NONE'
      AND rules.copies <> (SELECT count(*) FROM rule_choices WHERE rule_id = rules.id AND dataset_id = below.id)`,
  'a rule that has let go of all that was detached holds a file only where that was chosen for what holds it': `SELECT replica_id
    FROM locks JOIN rules ON rules.id = rule_id JOIN replicas ON replicas.id = replica_id WHERE ${SHRUNK} AND ${UNCHOSEN}`,
  'likewise with the files that could get no lock': `SELECT file_id FROM rule_problems AS replicas
    JOIN rules ON rules.id = rule_id WHERE ${SHRUNK} AND ${UNCHOSEN}`,
  'an expanded rule that has let go of it all has a lock, or a problem, for each file where that was chosen': `SELECT choices.id
    FROM rule_choices AS choices JOIN rules ON rules.id = choices.rule_id AND rules.stage = 'EXPANDED' AND rules.error IS NULL AND ${SHRUNK}
    JOIN contents ON contents.parent_id = choices.dataset_id
    WHERE NOT EXISTS (SELECT 1 FROM locks JOIN replicas ON replicas.id = locks.replica_id
        WHERE locks.rule_id = rules.id AND replicas.file_id = contents.child_id
          AND (replicas.rse_id = choices.rse_id OR choices.rse_id IS NULL))
      AND NOT EXISTS (SELECT 1 FROM rule_problems AS problems
        WHERE problems.rule_id = rules.id AND problems.file_id = contents.child_id
           AND (problems.rse_id = choices.rse_id OR choices.rse_id IS NULL))`,
  'of a rule that places each file by itself a file has as many copies as it wants': `SELECT rules.id FROM rules
    JOIN locks ON locks.rule_id = rules.id JOIN replicas ON replicas.id = locks.replica_id
    WHERE rules.grouping = 'NONE' AND rules.stage = 'EXPANDED' AND rules.error IS NULL AND rules.problems = 0 AND ${SHRUNK}
    GROUP BY rules.id, rules.copies, replicas.file_id HAVING count(*) <> rules.copies`,
  "a dataset's totals are those of its files": `SELECT id FROM dids WHERE type = 'DATASET' AND (
    files <> (SELECT count(*) FROM contents WHERE parent_id = dids.id) OR bytes <> (SELECT coalesce(sum(held.bytes), 0)
      FROM contents JOIN dids AS held ON held.id = contents.child_id WHERE contents.parent_id = dids.id))`,
  "a rule's state follows from its counters": `SELECT id FROM rules WHERE stage <> 'REMOVING'
    AND state NOT IN ('SUSPENDED', 'WAITING_APPROVAL') AND state <> CASE
    WHEN locks_stuck > 0 OR problems > 0 OR error IS NOT NULL THEN 'STUCK'
    WHEN stage = 'EXPANDED' AND locks_replicating = 0 THEN 'OK' ELSE 'REPLICATING' END`,
  "an account's usage is that of its rules' locks and reservations": `SELECT account_id FROM (
      SELECT account_id, rse_id, files, bytes, reserved FROM account_usage
      UNION ALL SELECT rules.account_id, replicas.rse_id, -1, -dids.bytes, 0 FROM locks JOIN rules ON rules.id = locks.rule_id
        JOIN replicas ON replicas.id = locks.replica_id JOIN dids ON dids.id = replicas.file_id
      UNION ALL SELECT rules.account_id, rule_choices.rse_id, 0, 0, -reserved FROM rule_choices
        JOIN rules ON rules.id = rule_choices.rule_id WHERE reserved <> 0) AS uses
     GROUP BY account_id, rse_id HAVING sum(files) <> 0 OR sum(bytes) <> 0 OR sum(reserved) <> 0`,
  'what a choice reserves is to be worked off':
    'SELECT id FROM rule_choices WHERE reserved < 0 OR (reserved > 0 AND NOT todo)',
  "a replica's lock count is that of its locks, and of the transfers that go over it": `SELECT id FROM replicas
    WHERE lock_count <> (SELECT count(*) FROM locks WHERE replica_id = replicas.id)
      + (SELECT count(*) FROM hops WHERE replica_id = replicas.id AND look_at IS NOT NULL)`,
  'a hop is looked at as soon as one of its transfers has ended': `SELECT hops.id FROM hops
    JOIN transfers AS parents ON parents.id = hops.transfer_id JOIN transfers AS carriers ON carriers.id = hops.carrier_id
    JOIN replicas ON replicas.id = hops.replica_id
    WHERE look_at > 0 AND (parents.state IN ('DONE', 'FAILED', 'CANCELLED')
      OR (carriers.state IN ('DONE', 'FAILED', 'CANCELLED') AND replicas.state <> 'AVAILABLE'))`,
  'what a hop waits for is on its way, or is looked at': `SELECT hops.id FROM hops JOIN replicas ON replicas.id = hops.replica_id
    WHERE look_at > 0 AND replicas.state <> 'AVAILABLE' AND NOT EXISTS
      (SELECT 1 FROM transfers WHERE transfers.replica_id = hops.replica_id AND ${OPEN})`,
  'no transfer waits for itself by way of others': `WITH RECURSIVE held (transfer, carrier) AS (
      SELECT hops.transfer_id, hops.carrier_id FROM hops JOIN transfers AS parents ON parents.id = hops.transfer_id
        JOIN transfers AS carriers ON carriers.id = hops.carrier_id
       WHERE look_at IS NOT NULL AND parents.${OPEN} AND carriers.${OPEN}),
    waits (transfer, carrier) AS (SELECT transfer, carrier FROM held
      UNION SELECT waits.transfer, held.carrier FROM waits JOIN held ON held.transfer = waits.carrier)
    SELECT transfer FROM waits WHERE transfer = carrier`,
  'a replica that is COPYING has an open transfer': `SELECT id FROM replicas WHERE state = 'COPYING'
    AND NOT EXISTS (SELECT 1 FROM transfers WHERE transfers.replica_id = replicas.id AND ${OPEN})`,
  'an intermediate replica that nobody holds has a tombstone': `SELECT replicas.id FROM replicas
    WHERE lock_count = 0 AND tombstone_at IS NULL AND EXISTS (SELECT 1 FROM hops WHERE hops.replica_id = replicas.id)`,
  'a lock is OK exactly where its replica is AVAILABLE': `SELECT replica_id FROM locks JOIN replicas ON replicas.id = replica_id
    WHERE (locks.state = 'OK') <> (replicas.state = 'AVAILABLE')`,
  'a lock that is REPLICATING has an open transfer, or waits for a deletion': `SELECT replica_id FROM locks
    JOIN replicas ON replicas.id = replica_id WHERE locks.state = 'REPLICATING' AND replicas.state <> 'BEING_DELETED'
    AND NOT EXISTS (SELECT 1 FROM transfers WHERE transfers.replica_id = locks.replica_id AND ${OPEN})`,
  'a transfer that nobody wants is not queued': `SELECT transfers.id FROM transfers JOIN replicas ON replicas.id = replica_id
    WHERE lock_count = 0 AND transfers.state IN ('WAITING', 'QUEUED')`,
  'a transfer that somebody wants is not to be cancelled': `SELECT transfers.id FROM transfers
    JOIN replicas ON replicas.id = replica_id WHERE lock_count > 0 AND cancel_requested AND transfers.${OPEN}
      AND NOT EXISTS (SELECT 1 FROM locks JOIN rules ON rules.id = rule_id WHERE replica_id = replicas.id AND rules.state = 'SUSPENDED')`,
  'a suspended rule has nothing queued that no other rule wants': `SELECT transfers.id FROM transfers JOIN locks USING (replica_id)
    JOIN rules ON rules.id = locks.rule_id AND rules.state = 'SUSPENDED' AND rules.align_cursor IS NULL AND rules.stage <> 'REMOVING'
    JOIN replicas ON replicas.id = transfers.replica_id
    WHERE transfers.state IN ('WAITING', 'QUEUED', 'STAGING') AND lock_count = (SELECT count(*) FROM locks AS all_locks
      JOIN rules AS all_rules ON all_rules.id = all_locks.rule_id AND all_rules.state = 'SUSPENDED' WHERE all_locks.replica_id = replicas.id)`,
  'a rule that nobody has approved has nothing': `SELECT rules.id FROM rules WHERE state = 'WAITING_APPROVAL' AND stage <> 'REMOVING'
    AND (EXISTS (SELECT 1 FROM locks WHERE rule_id = rules.id) OR EXISTS (SELECT 1 FROM rule_choices WHERE rule_id = rules.id))`,
  'a file that is there is not copied': `SELECT transfers.id FROM transfers JOIN replicas ON replicas.id = replica_id
    WHERE replicas.state = 'AVAILABLE' AND transfers.${OPEN}`,
  'a lock on what is BAD is STUCK': `SELECT replica_id FROM locks JOIN replicas ON replicas.id = replica_id
    WHERE replicas.state = 'BAD' AND locks.state <> 'STUCK'`,
  'what is AVAILABLE has no fault': `SELECT replicas.id FROM replicas JOIN replica_faults ON replica_id = replicas.id
    WHERE over_at IS NULL AND replicas.state = 'AVAILABLE'`,
  'what is to be deleted is in a task for that': `SELECT id FROM replicas WHERE state = 'BEING_DELETED' AND NOT EXISTS
    (SELECT 1 FROM task_items JOIN tasks ON tasks.id = task_id WHERE replica_id = replicas.id AND kind = 'delete')`,
  'a replica has one open transfer at most': `SELECT replica_id FROM transfers WHERE ${OPEN} GROUP BY replica_id HAVING count(*) > 1`,
  'what is queued can be found by a claim': `SELECT transfers.id FROM transfers JOIN bundles ON bundles.id = bundle_id
    JOIN links ON links.id = bundles.link_id WHERE transfers.state = 'QUEUED' AND NOT (bundles.has_work AND links.has_work)`,
  'a bundle whose grants can both be used is ready': `SELECT bundles.id FROM bundles
    JOIN grants AS source ON source.id = source_grant_id JOIN grants AS destination ON destination.id = destination_grant_id
    WHERE NOT ready AND source.state = 'LIVE' AND destination.state = 'LIVE'`,
  // A transfer's copies of what its bundle, link and replicas say have no references.
  'a transfer says of its way what its bundle says': `SELECT transfers.id FROM transfers JOIN bundles ON bundles.id = bundle_id
    JOIN links ON links.id = bundles.link_id JOIN replicas AS own ON own.id = replica_id
    JOIN replicas AS source ON source.id = source_replica_id
    WHERE transfers.${OPEN} AND transfers.state <> 'WAITING'
      AND (transfers.link_id <> links.id OR transfers.source_rse_id <> links.source_rse_id
        OR transfers.destination_rse_id <> links.destination_rse_id OR source.rse_id <> links.source_rse_id
        OR own.rse_id <> links.destination_rse_id OR transfers.vo_id <> bundles.vo_id)`,
  'a rule that names its sources has their set': `SELECT id FROM rules WHERE source_expression IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM source_sets WHERE source_sets.vo_id = rules.vo_id AND expression = source_expression)`,
  'what is queued comes from where its rule lets it come, or is looked at': `SELECT transfers.id FROM transfers
    JOIN source_sets ON source_sets.id = source_set_id AND (look_cursor IS NULL OR look_cursor >= transfers.id)
    JOIN replicas AS source ON source.id = source_replica_id WHERE transfers.state IN ('QUEUED', 'STAGING')
      AND NOT EXISTS (SELECT 1 FROM source_set_members WHERE set_id = source_set_id AND source_set_members.rse_id = source.rse_id)
      AND NOT EXISTS (SELECT 1 FROM hops JOIN transfers AS carriers ON carriers.id = hops.carrier_id
        WHERE hops.replica_id = source.id AND carriers.source_set_id = transfers.source_set_id)`,
  'a link on trial, and no other, has a hold': 'SELECT link_id FROM link_health WHERE (holds > 0) <> (held_until > 0)',
  'work is held by living sessions only': `SELECT transfers.id FROM transfers JOIN sessions ON sessions.id = session_id
    WHERE sessions.ended_at IS NOT NULL`,
  'what was claimed is held, or settled': `SELECT id FROM transfers WHERE state IN ('CLAIMED', 'COPYING') AND session_id IS NULL`,
  'what is not active is not held': `SELECT id FROM transfers WHERE state NOT IN (${ACTIVE}) AND session_id IS NOT NULL`,
  'an import knows how many directories it has left, and is done without any': `SELECT id FROM imports WHERE directories_left <>
    (SELECT count(*) FROM import_directories WHERE import_id = imports.id) OR (state = 'DONE') <> (directories_left = 0)`,
  'an import is in one directory at a time': `SELECT import_id FROM import_directories WHERE done_until IS NOT NULL
    GROUP BY import_id HAVING count(*) > 1`,
  'an import tells each thing that it left out': `SELECT id FROM imports WHERE left_out <>
    (SELECT count(*) FROM import_problems WHERE import_id = imports.id)`,
  'imports are listed by living sessions only': `SELECT imports.id FROM imports LEFT JOIN sessions ON sessions.id = session_id
    WHERE (state = 'LISTING') <> (session_id IS NOT NULL AND sessions.ended_at IS NULL)`,
  'storages take no more than their limits': `SELECT id FROM rses
    WHERE (SELECT count(*) FROM transfers WHERE source_rse_id = rses.id AND state IN (${ACTIVE})) > max_outbound
       OR (SELECT count(*) FROM transfers WHERE destination_rse_id = rses.id AND state IN (${ACTIVE})) > max_inbound`,
  'links take no more than their limits': `SELECT id FROM links
    WHERE (SELECT count(*) FROM transfers WHERE link_id = links.id AND state IN (${ACTIVE})) > max_active`,
  // A failure that is looked at by itself counts only where it is the last; a COPY without an outcome, where nothing came of it.
  'attempts that count have their outcome': `SELECT id FROM transfers WHERE attempts NOT BETWEEN
    (SELECT count(*) FROM attempts WHERE transfer_id = transfers.id
        AND (outcome = 'done' OR (outcome = 'failed' AND coalesce(code, '') NOT IN (${UNCOUNTED}))))
    AND (SELECT count(*) FROM attempts WHERE transfer_id = transfers.id AND outcome IN ('done', 'failed', 'absent'))`,
  'an account of a pool is of the pool’s VO': `SELECT account_id FROM pool_accounts JOIN accounts ON accounts.id = account_id
    JOIN account_pools ON account_pools.id = pool_id WHERE accounts.vo_id <> account_pools.vo_id`,
  'a scope’s permissions are of accounts of its VO': `SELECT account_id FROM scope_permissions
    JOIN accounts ON accounts.id = account_id JOIN scopes ON scopes.id = scope_id WHERE accounts.vo_id <> scopes.vo_id`,
}

/** The sentences that do not hold, with the keys of what breaks them. */
export async function brokenInvariants(world: World): Promise<string[]> {
  const broken: string[] = []
  for (const [sentence, sql] of Object.entries(INVARIANTS)) {
    const rows = await world.rows<object>(sql)
    if (rows.length > 0) broken.push(`${sentence}: not for ${rows.flatMap(row => Object.values(row)).join(', ')}`)
  }
  return broken
}
