import type { Knex } from 'knex'

/** Which storages the files of a rule may come from: what an expression of rules names now, and the transfers that go by it. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('source_sets', t => {
    t.bigIncrements('id')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.text('expression').notNullable()
    t.bigInteger('look_cursor').comment(
      'its members have changed: the last transfer that was looked at since; null: all',
    )
    t.unique(['vo_id', 'expression'])
  })
  await knex.schema.createTable('source_set_members', t => {
    t.bigInteger('set_id').notNullable().references('source_sets.id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.primary(['set_id', 'rse_id'])
  })
  // Null: from anywhere. Knex would make the table anew on SQLite, which its references forbid.
  await knex.raw('ALTER TABLE transfers ADD COLUMN source_set_id bigint REFERENCES source_sets (id)')
  await knex.raw(
    `CREATE INDEX transfers_of_source_set ON transfers (source_set_id, id)
      WHERE source_set_id IS NOT NULL AND state IN ('WAITING', 'QUEUED', 'STAGING')`,
  )
}
