import type { Knex } from 'knex'

/** What a rule lacks is said until a whole look has found otherwise; and which of its choices have files without a lock. */
export async function up(knex: Knex): Promise<void> {
  for (const sql of [
    // What this pass has found so far of why there are too few storages; `error` when it is over.
    'ALTER TABLE rules ADD COLUMN found_error text',
    'UPDATE rules SET found_error = error',
    'ALTER TABLE rule_choices ADD COLUMN wanting boolean NOT NULL DEFAULT false',
    `UPDATE rule_choices SET wanting = true WHERE rse_id IS NOT NULL
        AND rule_id IN (SELECT id FROM rules WHERE error LIKE 'QUOTA_EXCEEDED%')`,
  ]) {
    await knex.raw(sql)
  }
}
