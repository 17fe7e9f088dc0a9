import type { Knex } from 'knex'

/**
 * How a rule chooses: grouping, weights and sources; a choice without a storage is one for each file (grouping NONE). What accounts may
 * lock where, and what they do: of every lock its file's bytes, and beside them what was chosen for and is not locked yet.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`ALTER TABLE rules ADD COLUMN grouping text NOT NULL DEFAULT 'DATASET'`)
  await knex.raw('ALTER TABLE rules ADD COLUMN weight text')
  await knex.raw('ALTER TABLE rules ADD COLUMN source_expression text')

  await knex.schema.alterTable('rule_choices', t => {
    t.setNullable('rse_id')
  })
  await knex.raw('ALTER TABLE rule_choices ADD COLUMN bytes bigint NOT NULL DEFAULT 0')
  await knex.raw('ALTER TABLE rule_choices ADD COLUMN reserved bigint NOT NULL DEFAULT 0')
  await knex.raw('UPDATE rule_choices SET bytes = (SELECT bytes FROM dids WHERE dids.id = rule_choices.dataset_id)')
  // More than they need, where some of it is locked already: what is left when they are worked off is given back.
  await knex.raw('UPDATE rule_choices SET reserved = bytes WHERE todo')
  await knex.raw('CREATE UNIQUE INDEX rule_choices_anywhere ON rule_choices (rule_id, dataset_id) WHERE rse_id IS NULL')

  await knex.schema.createTable('account_usage', t => {
    t.bigInteger('account_id').notNullable().references('accounts.id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.bigInteger('files').notNullable().comment('of the locks of its rules: a file that two of them lock counts twice')
    t.bigInteger('bytes').notNullable().comment('likewise')
    t.bigInteger('reserved').notNullable().comment('bytes that were chosen for there, and are not locked yet')
    t.primary(['account_id', 'rse_id'])
  })
  await knex.raw(
    `INSERT INTO account_usage (account_id, rse_id, files, bytes, reserved)
     SELECT account_id, rse_id, sum(files), sum(bytes), sum(reserved) FROM (
       SELECT rules.account_id, replicas.rse_id, count(*) AS files, sum(dids.bytes) AS bytes, 0 AS reserved
         FROM locks JOIN rules ON rules.id = locks.rule_id JOIN replicas ON replicas.id = locks.replica_id
         JOIN dids ON dids.id = replicas.file_id GROUP BY rules.account_id, replicas.rse_id
       UNION ALL
       SELECT rules.account_id, rule_choices.rse_id, 0, 0, rule_choices.reserved
         FROM rule_choices JOIN rules ON rules.id = rule_choices.rule_id WHERE rule_choices.reserved > 0
     ) AS uses GROUP BY account_id, rse_id`,
  )
  await knex.schema.createTable('account_limits', t => {
    t.bigIncrements('id')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.bigInteger('account_id').references('accounts.id').comment('null: of every account of the VO')
    t.text('expression').notNullable().comment('of all storages that it names together; the name of one: of that one')
    t.bigInteger('bytes').comment('null: without limit')
    t.bigInteger('updated_at').notNullable()
    t.index(['account_id'])
  })
  await knex.raw(
    'CREATE UNIQUE INDEX account_limits_alike ON account_limits (vo_id, coalesce(account_id, 0), expression)',
  )
}
