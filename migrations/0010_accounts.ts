import type { Knex } from 'knex'

/** Who is which account by a pattern, accounts of pools and whose they are, and what accounts may do in scopes. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('mappings', t => {
    t.bigIncrements('id')
    t.integer('position').notNullable().comment('the first that matches counts; of equal ones the older')
    t.text('issuer').notNullable()
    t.text('claim').notNullable().comment('sub | client_id | group | entitlement | scope')
    t.text('pattern').notNullable()
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.text('target').notNullable().comment('account | pool')
    t.text('name').notNullable().comment('of the account or the pool; {1} is what the first wildcard stood for')
    t.bigInteger('created_at').notNullable()
  })
  await knex.schema.createTable('account_pools', t => {
    t.bigIncrements('id')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.text('name').notNullable().comment('its accounts are called so, and a number')
    t.integer('size').notNullable().comment('accounts that are held at a time')
    t.bigInteger('created_at').notNullable()
    t.unique(['vo_id', 'name'])
  })
  await knex.schema.createTable('pool_accounts', t => {
    t.bigInteger('account_id').primary().notNullable().references('accounts.id')
    t.bigInteger('pool_id').notNullable().references('account_pools.id')
    t.integer('number').notNullable()
    t.text('issuer').notNullable().comment('whose it is, for good')
    t.text('subject').notNullable()
    t.boolean('held').notNullable().comment('false: released, it takes no room in the pool')
    t.bigInteger('since').notNullable()
    t.unique(['pool_id', 'issuer', 'subject'])
    t.unique(['pool_id', 'number'])
  })
  await knex.schema.createTable('scope_permissions', t => {
    t.bigInteger('scope_id').notNullable().references('scopes.id').comment('a scope without rows is open to its VO')
    t.bigInteger('account_id').notNullable().references('accounts.id')
    t.boolean('may_write').notNullable()
    t.boolean('may_rule').notNullable()
    t.boolean('may_manage').notNullable().comment('and all else')
    t.primary(['scope_id', 'account_id'])
  })
}
