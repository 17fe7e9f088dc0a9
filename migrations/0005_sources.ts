import type { Knex } from 'knex'

/** How sources do, for each link: which fail and are held back, how fast they are, and why queued transfers were moved to another source. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('link_health', t => {
    t.bigInteger('link_id').primary().notNullable().references('links.id')
    t.bigInteger('since').notNullable().comment("the first of the source's own failures on the link")
    t.bigInteger('failed_at').notNullable().comment('the last')
    t.bigInteger('gave_at').notNullable().comment('the last copy on trial that is done; 0: none was')
    t.integer('failures').notNullable().comment('of the run; once it is held: of what was claimed since the hold ended')
    t.integer('successes').notNullable().comment('likewise')
    t.boolean('confirmed').notNullable().comment('by the destination, or by more than one worker')
    t.bigInteger('session_id').notNullable().comment('of the worker that told the first')
    t.integer('holds').notNullable().comment('how often the link was held back for them')
    t.bigInteger('held_until').notNullable().comment('nothing is claimed before it, then few at a time; 0: not held')
    t.text('code').notNullable()
    t.text('message').notNullable().comment("the last failure in the storage's own words")
  })
  await knex.schema.createTable('link_minutes', t => {
    t.bigInteger('link_id').notNullable().references('links.id')
    t.bigInteger('minute').notNullable().comment('since the epoch: when the attempts ended')
    t.bigInteger('files').notNullable().comment('copied')
    t.bigInteger('bytes').notNullable()
    t.bigInteger('milliseconds').notNullable().comment('the sum over the files')
    t.primary(['link_id', 'minute'])
    t.index(['minute'])
  })
  await knex.schema.createTable('replans', t => {
    t.bigIncrements('id')
    t.bigInteger('at').notNullable()
    t.bigInteger('source_rse_id').notNullable().references('rses.id').comment('the source that was left')
    t.text('code').notNullable().comment('SOURCE_HELD | SOURCE_SLOW')
    t.text('message').notNullable()
  })
  // The last time that it was moved to another source. Knex would make the table anew on SQLite, which its references forbid.
  await knex.raw('ALTER TABLE transfers ADD COLUMN replan_id bigint REFERENCES replans (id)')
}
