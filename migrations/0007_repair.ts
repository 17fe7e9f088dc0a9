import type { Knex } from 'knex'

/** Where the repair of a rule goes on: those of its stuck locks that nothing can be done for stay stuck, and must not be met again and again. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('rules', t => {
    t.bigInteger('repair_cursor')
      .notNullable()
      .defaultTo(0)
      .comment('of this repair: the replicas up to this one were looked at')
  })
}
