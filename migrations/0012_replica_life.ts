import type { Knex } from 'knex'

/** What becomes of replicas: which are kept without a rule, which go at once, and what was found, or said, of those that are not good. */
export async function up(knex: Knex): Promise<void> {
  for (const sql of [
    // No rule brought it here, so the end of a rule does not take it away.
    'ALTER TABLE replicas ADD COLUMN kept boolean NOT NULL DEFAULT false',
    // With its tombstone: it goes however much space is free.
    'ALTER TABLE replicas ADD COLUMN purge boolean NOT NULL DEFAULT false',
    'ALTER TABLE rses ADD COLUMN keep_registered boolean NOT NULL DEFAULT true',
    // Seconds between the last lock and the deletion; null: as the server is configured.
    'ALTER TABLE rses ADD COLUMN tombstone_delay bigint',
    // What only this rule wanted goes at once when it ends.
    'ALTER TABLE rules ADD COLUMN purge_replicas boolean NOT NULL DEFAULT false',
    // Who declared it; null: a worker found it.
    'ALTER TABLE replica_faults ADD COLUMN account_id bigint REFERENCES accounts (id)',
    // Somebody said that it may be deleted, though no storage have a good copy.
    'ALTER TABLE replica_faults ADD COLUMN expendable boolean NOT NULL DEFAULT false',
    // Since then the replica is good again, or something else is known of it; null: it holds.
    'ALTER TABLE replica_faults ADD COLUMN over_at bigint',
    `UPDATE replica_faults SET over_at = at WHERE id NOT IN (SELECT max(id) FROM replica_faults GROUP BY replica_id)
        OR NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.id = replica_faults.replica_id AND replicas.state = 'BAD')`,
    'CREATE UNIQUE INDEX replica_faults_open ON replica_faults (replica_id) WHERE over_at IS NULL',
    // What no transfer brought was registered, imported or uploaded.
    `UPDATE replicas SET kept = true, tombstone_at = NULL WHERE state IN ('AVAILABLE', 'BAD') AND NOT EXISTS
       (SELECT 1 FROM transfers WHERE transfers.replica_id = replicas.id AND transfers.state = 'DONE')`,
  ]) {
    await knex.raw(sql)
  }
}
