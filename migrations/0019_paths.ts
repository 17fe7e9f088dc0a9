import type { Knex } from 'knex'

/** Which scopes have files in directories that somebody named, instead of the layout; what accounts use, by storage. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('directory_scopes', t => {
    t.bigInteger('directory_id').notNullable().references('directories.id')
    t.bigInteger('scope_id').notNullable().references('scopes.id')
    t.primary(['directory_id', 'scope_id'])
  })
  await knex.schema.alterTable('account_usage', t => t.index(['rse_id']))
}
