import type { Knex } from 'knex'

/** Deletions are decided once more when a worker is told of them, and what goes at once is found behind much that does not. */
export async function up(knex: Knex): Promise<void> {
  for (const sql of [
    // Of deletions that were begun before nobody knows what they were.
    "UPDATE task_items SET state = 'ASKED' WHERE state = 'WANTED' AND task_id IN (SELECT id FROM tasks WHERE kind = 'delete')",
  ]) {
    await knex.raw(sql)
  }
}
