import type { Knex } from 'knex'

/** Who, where and what: VOs, accounts, storages, DIDs and replicas. Times are epoch milliseconds everywhere. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('installation', t => {
    t.integer('id').primary()
    t.bigInteger('epoch').notNullable().comment('a restored backup begins a new one; it is inside every fence')
  })
  await knex('installation').insert({ id: 1, epoch: 1 })

  await knex.schema.createTable('vos', t => {
    t.bigIncrements('id')
    t.text('name').notNullable().unique()
  })
  await knex.schema.createTable('accounts', t => {
    t.bigIncrements('id')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.text('name').notNullable()
    t.bigInteger('created_at').notNullable()
    t.unique(['vo_id', 'name'])
  })
  await knex.schema.createTable('identities', t => {
    t.bigIncrements('id')
    t.text('issuer').notNullable()
    t.text('subject').notNullable()
    t.bigInteger('account_id').notNullable().references('accounts.id')
    t.unique(['issuer', 'subject'])
  })

  await knex.schema.createTable('rses', t => {
    t.bigIncrements('id')
    t.text('name').notNullable().unique()
    t.text('layout').notNullable()
    t.text('checksum').notNullable().comment('adler32 | md5: what it is asked for when a copy is verified')
    t.boolean('availability_read').notNullable()
    t.boolean('availability_write').notNullable()
    t.boolean('availability_delete').notNullable()
    t.integer('max_inbound').notNullable().comment('active transfers')
    t.integer('max_outbound').notNullable()
    t.integer('max_staging').notNullable().comment('files asked back from tape at a time')
    t.integer('max_deletions').notNullable().comment('files under deletion at a time')
    t.text('checksum_policy')
      .notNullable()
      .comment('none | source | destination | both: when it is compared, as which side')
    t.text('watchdogs').notNullable().comment('JSON: seconds by name; what is absent is the worker’s')
    t.boolean('tape').notNullable().comment('it has a tape behind it, and the tape REST API')
    t.boolean('multihop').notNullable().comment('copies may go over it to where they cannot go at once')
    t.bigInteger('capacity_bytes').comment('null: nobody knows')
    t.bigInteger('min_free_bytes').comment('replicas with a tombstone go only while less is free; null: at once')
    t.bigInteger('created_at').notNullable()
  })
  await knex.schema.createTable('vo_rses', t => {
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.text('prefix').notNullable().comment('where the VO may write, an absolute path at the storage')
    t.text('base_path').notNullable().comment("what the storage puts before the issuer's scope paths")
    t.text('audience').notNullable()
    t.primary(['vo_id', 'rse_id'])
  })
  await knex.schema.createTable('rse_attributes', t => {
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.text('key').notNullable()
    t.text('value').notNullable().comment('JSON: a string, a number or a boolean')
    t.primary(['rse_id', 'key'])
  })
  await knex.schema.createTable('rse_protocols', t => {
    t.bigIncrements('id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.text('url').notNullable().comment('https://host[:port], to which absolute paths are appended')
    t.integer('priority').notNullable().comment('the smallest is used first')
    t.boolean('can_pull').notNullable().comment('takes COPY with Source')
    t.boolean('can_push').notNullable().comment('takes COPY with Destination')
    t.boolean('fresh_connections').notNullable().comment('a new connection for each COPY')
    t.boolean('macaroons').notNullable().comment('the storage issues tokens of its own')
    t.text('redirect_hosts').notNullable().comment("JSON array; empty: the host's parent domain")
    t.unique(['rse_id', 'url'])
  })
  await knex.schema.createTable('links', t => {
    t.bigIncrements('id')
    t.bigInteger('source_rse_id').notNullable().references('rses.id')
    t.bigInteger('destination_rse_id').notNullable().references('rses.id')
    t.integer('distance').notNullable()
    t.integer('max_active').notNullable().comment('as an admin has set it')
    t.integer('learnt_active').notNullable().comment('what the optimizer has found: the lesser of the two counts')
    t.boolean('optimize').notNullable().comment('false: what an admin has set counts, and the mode is not chosen')
    t.integer('weight').notNullable()
    t.boolean('has_work').notNullable().comment('a hint: some transfer may be queued')
    t.bigInteger('served_at').notNullable()
    t.unique(['source_rse_id', 'destination_rse_id'])
    t.index(['destination_rse_id', 'distance'])
  })
  await knex.raw('CREATE INDEX links_with_work ON links (id) WHERE has_work')

  await knex.schema.createTable('scopes', t => {
    t.bigIncrements('id')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.text('name').notNullable().unique()
  })
  await knex.schema.createTable('dids', t => {
    t.bigIncrements('id')
    t.bigInteger('scope_id').notNullable().references('scopes.id')
    t.text('name').notNullable()
    t.text('type').notNullable().comment('FILE | DATASET | CONTAINER')
    t.bigInteger('bytes').notNullable().comment('of a file; the sum of its files for a dataset')
    t.bigInteger('files').notNullable().comment('1 for a file; the number of its files for a dataset')
    t.text('adler32')
    t.text('md5')
    t.boolean('is_open').notNullable()
    t.bigInteger('account_id').notNullable().references('accounts.id')
    t.bigInteger('created_at').notNullable()
    t.unique(['scope_id', 'name'])
  })
  await knex.schema.createTable('contents', t => {
    t.bigInteger('parent_id').notNullable().references('dids.id')
    t.bigInteger('child_id').notNullable().references('dids.id')
    t.primary(['parent_id', 'child_id'])
    t.index(['child_id'])
  })

  await knex.schema.createTable('directories', t => {
    t.bigIncrements('id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.text('path').notNullable().comment('absolute at the storage, without a trailing slash')
    t.bigInteger('top_id').references('directories.id').comment('the directory tokens are asked for; null: itself')
    t.unique(['rse_id', 'path'])
  })
  await knex.schema.createTable('replicas', t => {
    t.bigIncrements('id')
    t.bigInteger('file_id').notNullable().references('dids.id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.bigInteger('directory_id').notNullable().references('directories.id')
    t.text('name').notNullable()
    t.text('state').notNullable()
    t.integer('lock_count').notNullable()
    t.bigInteger('tombstone_at').comment('may be deleted after it, while no lock holds it')
    t.bigInteger('updated_at').notNullable()
    t.unique(['file_id', 'rse_id'])
    t.unique(['directory_id', 'name'])
  })
  // Lists by prefix go by the bytes of names, whatever language the database was made for. SQLite compares bytes anyway.
  if (knex.client.config.client === 'pg') {
    for (const [table, column] of [
      ['scopes', 'name'],
      ['dids', 'name'],
      ['directories', 'path'],
      ['replicas', 'name'],
    ]) {
      await knex.raw(`ALTER TABLE ${table} ALTER COLUMN ${column} TYPE text COLLATE "C"`)
    }
  }
  await knex.raw('CREATE INDEX replicas_tombstones ON replicas (rse_id, tombstone_at) WHERE tombstone_at IS NOT NULL')
}
