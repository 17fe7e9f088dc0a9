import type { Knex } from 'knex'

/** What people do with a rule in its life, and what happened to it: kept when it is gone. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE rules ADD COLUMN locked boolean NOT NULL DEFAULT false')
  await knex.raw('ALTER TABLE rules ADD COLUMN ignore_quota boolean NOT NULL DEFAULT false')
  await knex.raw('ALTER TABLE rules ADD COLUMN replaces bigint')
  await knex.raw('ALTER TABLE rules ADD COLUMN align_cursor bigint')
  await knex.raw(`ALTER TABLE rules ADD COLUMN noted_state text NOT NULL DEFAULT 'REPLICATING'`)
  await knex.raw('UPDATE rules SET noted_state = state')
  await knex.raw('CREATE INDEX rules_to_align ON rules (id) WHERE align_cursor IS NOT NULL')
  await knex.raw('CREATE INDEX rules_replacing ON rules (id) WHERE replaces IS NOT NULL')
  await knex.raw('CREATE INDEX rules_to_note ON rules (id) WHERE noted_state <> state')

  await knex.schema.createTable('rule_events', t => {
    t.bigIncrements('id')
    t.bigInteger('rule_id').notNullable().comment('without a reference: what happened is kept when the rule is gone')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.bigInteger('did_id').notNullable().references('dids.id')
    t.bigInteger('at').notNullable()
    t.text('event').notNullable()
    t.text('actor').comment('the account, or who it was without one; null: Waybill itself')
    t.text('details').notNullable().comment('JSON')
    t.index(['rule_id', 'id'])
    t.index(['did_id', 'id'])
    t.index(['at'])
  })
}
