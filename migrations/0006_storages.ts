import type { Knex } from 'knex'

/** What storages can bear and how they do (destinations that are full or fail), and what is done there in bulk. */
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

  await knex.schema.createTable('tasks', t => {
    t.bigIncrements('id')
    t.text('kind').notNullable().comment('delete')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.bigInteger('session_id').references('sessions.id').comment('of the worker that is at it; null: nobody')
    t.bigInteger('fence').notNullable().comment('number of claims: who is at it now')
    t.bigInteger('not_before').notNullable()
    t.integer('failures').notNullable().comment('since something was done')
    t.text('error').comment('the last, in the storage’s own words')
    t.bigInteger('created_at').notNullable()
    t.bigInteger('updated_at').notNullable()
  })
  await knex.raw('CREATE INDEX tasks_due ON tasks (not_before) WHERE session_id IS NULL')
  await knex.raw('CREATE INDEX tasks_held ON tasks (session_id) WHERE session_id IS NOT NULL')
  await knex.schema.createTable('task_items', t => {
    t.bigInteger('replica_id').primary().notNullable().references('replicas.id').comment('in one task at a time')
    t.bigInteger('task_id').notNullable().references('tasks.id')
    t.text('error')
    t.index(['task_id', 'replica_id'])
  })
}
