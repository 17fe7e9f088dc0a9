import type { Knex } from 'knex'

/** Rules, the choices made for them, and the locks they hold. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('rules', t => {
    t.bigIncrements('id')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.bigInteger('did_id').notNullable().references('dids.id')
    t.bigInteger('account_id').notNullable().references('accounts.id')
    t.integer('copies').notNullable()
    t.text('expression').notNullable()
    t.text('activity').notNullable()
    t.integer('priority').notNullable()
    t.text('comment')
    t.boolean('archive')
      .notNullable()
      .defaultTo(false)
      .comment('copies count when they are on tape, where there is one')
    t.bigInteger('expires_at')
    t.text('state').notNullable()
    t.text('stage').notNullable().comment('CHOOSING | EXPANDING | EXPANDED | REMOVING: how far the evaluation got')
    t.boolean('dirty').notNullable().comment('something was attached meanwhile: choose again when this pass is over')
    t.bigInteger('cursor_choice').notNullable().comment('expansion: the choices up to this one are done')
    t.bigInteger('cursor_file')
      .notNullable()
      .comment('expansion: of the next choice, the files up to this one are done')
    t.bigInteger('locks_ok').notNullable()
    t.bigInteger('locks_replicating').notNullable()
    t.bigInteger('locks_stuck').notNullable()
    t.integer('problems').notNullable()
    t.integer('repairs').notNullable()
    t.bigInteger('repair_at')
    t.text('error')
    t.bigInteger('created_at').notNullable()
    t.bigInteger('updated_at').notNullable()
  })
  // One that is being removed does not stand in the way of its like.
  await knex.raw(
    `CREATE UNIQUE INDEX rules_alike ON rules (did_id, account_id, expression, copies) WHERE stage <> 'REMOVING'`,
  )
  await knex.raw(`CREATE INDEX rules_in_work ON rules (updated_at) WHERE stage <> 'EXPANDED'`)
  await knex.raw('CREATE INDEX rules_expiring ON rules (expires_at) WHERE expires_at IS NOT NULL')
  await knex.raw(`CREATE INDEX rules_stuck ON rules (id) WHERE state = 'STUCK'`)
  await knex.raw('CREATE INDEX rules_to_repair ON rules (repair_at) WHERE repair_at IS NOT NULL')

  await knex.schema.createTable('rule_choices', t => {
    t.bigIncrements('id')
    t.bigInteger('rule_id').notNullable().references('rules.id')
    t.bigInteger('dataset_id').notNullable().references('dids.id').comment('a dataset, or a file that is in none')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.unique(['rule_id', 'dataset_id', 'rse_id'])
  })
  await knex.schema.createTable('rule_problems', t => {
    t.bigInteger('rule_id').notNullable().references('rules.id')
    t.bigInteger('file_id').notNullable().references('dids.id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.text('code').notNullable()
    t.text('message').notNullable()
    t.primary(['rule_id', 'file_id', 'rse_id'])
  })
  await knex.schema.createTable('locks', t => {
    t.bigInteger('rule_id').notNullable().references('rules.id')
    t.bigInteger('replica_id').notNullable().references('replicas.id')
    t.text('state').notNullable()
    t.primary(['rule_id', 'replica_id'])
    t.index(['replica_id'])
  })
  await knex.raw(`CREATE INDEX locks_stuck ON locks (rule_id, replica_id) WHERE state = 'STUCK'`)
}
