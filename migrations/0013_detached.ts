import type { Knex } from 'knex'

/** What rules have to let go of since it was detached, worked off a bounded number of files at a time. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('detached', t => {
    t.bigIncrements('id')
    t.bigInteger('rule_id').notNullable().references('rules.id')
    t.bigInteger('did_id')
      .notNullable()
      .references('dids.id')
      .comment('was at or below the rule’s DID, and may still be in another way')
    t.bigInteger('cursor').notNullable().comment('of what it holds, those up to this one were looked at')
    t.index(['rule_id', 'id'])
    t.index(['did_id'])
  })
  await knex.schema.alterTable('rules', t => {
    t.bigInteger('pass')
      .notNullable()
      .defaultTo(0)
      .comment('how many passes of its evaluation are over: a step that was prepared in one is not taken in another')
  })
}
