import type { Knex } from 'knex'

/**
 * A rule's turn in the evaluation has a date of its own: `updated_at` is renewed by each outcome too. And each change that transfers
 * have to follow has a number.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE rules ADD COLUMN turn_at bigint NOT NULL DEFAULT 0')
  await knex.raw('ALTER TABLE rules ADD COLUMN align_pass bigint NOT NULL DEFAULT 0')
  await knex.raw('UPDATE rules SET turn_at = updated_at')
  await knex.raw('DROP INDEX rules_in_work')
  await knex.raw(`CREATE INDEX rules_in_work ON rules (turn_at, id) WHERE stage <> 'EXPANDED'`)
}
