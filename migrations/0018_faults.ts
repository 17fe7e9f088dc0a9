import type { Knex } from 'knex'

/**
 * Deletions are decided once more when a worker is told of them, what goes at once is found behind much that does not, and what is
 * deleted while an import is listed is remembered so long.
 */
export async function up(knex: Knex): Promise<void> {
  // A worker that lists an import may have seen what has been deleted since, and tells of it later.
  await knex.schema.createTable('deleted_paths', t => {
    t.bigInteger('directory_id').notNullable().references('directories.id')
    t.text('name').notNullable()
    t.bigInteger('at').notNullable()
    t.primary(['directory_id', 'name'])
  })
  for (const sql of [
    // Of deletions that were begun before nobody knows what they were.
    "UPDATE task_items SET state = 'ASKED' WHERE state = 'WANTED' AND task_id IN (SELECT id FROM tasks WHERE kind = 'delete')",
    // One that stays for a reason that may pass is looked at again then; its place among the others is its tombstone's.
    'ALTER TABLE replicas ADD COLUMN reap_after bigint',
    // Nothing that its worker tells was seen before that.
    'ALTER TABLE imports ADD COLUMN claimed_at bigint',
    'CREATE INDEX replicas_purged ON replicas (rse_id, tombstone_at) WHERE purge AND tombstone_at IS NOT NULL',
  ]) {
    await knex.raw(sql)
  }
}
