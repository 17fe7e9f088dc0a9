import type { Knex } from 'knex'

/** Deletions are decided once more when a worker is told of them, and what goes at once is found behind much that does not. */
export async function up(knex: Knex): Promise<void> {
  for (const sql of [
    // Of deletions that were begun before nobody knows what they were.
    "UPDATE task_items SET state = 'ASKED' WHERE state = 'WANTED' AND task_id IN (SELECT id FROM tasks WHERE kind = 'delete')",
    // One that stays for a reason that may pass is looked at again then; its place among the others is its tombstone's.
    'ALTER TABLE replicas ADD COLUMN reap_after bigint',
    'CREATE INDEX replicas_purged ON replicas (rse_id, tombstone_at) WHERE purge AND tombstone_at IS NOT NULL',
  ]) {
    await knex.raw(sql)
  }
}
