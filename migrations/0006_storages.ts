import type { Knex } from 'knex'

/** What storages can bear and how they do: destinations that are full or fail. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('destination_health', t => {
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.bigInteger('since').notNullable()
    t.bigInteger('failed_at').notNullable()
    t.bigInteger('gave_at').notNullable()
    t.integer('failures').notNullable()
    t.integer('successes').notNullable()
    t.boolean('confirmed').notNullable()
    t.bigInteger('session_id').notNullable()
    t.integer('holds').notNullable()
    t.bigInteger('held_until').notNullable().comment('nothing is sent there before it, then few at a time; 0: not held')
    t.text('code').notNullable()
    t.text('message').notNullable()
    t.primary(['vo_id', 'rse_id'])
  })
  await knex.schema.createTable('replica_faults', t => {
    t.bigIncrements('id')
    t.bigInteger('replica_id').notNullable().references('replicas.id').comment('was found BAD')
    t.bigInteger('at').notNullable()
    t.bigInteger('transfer_id').comment('that found it')
    t.text('code').notNullable()
    t.text('message').notNullable()
    t.index(['replica_id', 'id'])
  })
}
