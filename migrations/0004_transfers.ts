import type { Knex } from 'knex'

/** The queue, the workers' sessions, and what happened. The partial indexes hold open work only: finished rows cost a claim nothing. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('workers', t => {
    t.text('issuer').notNullable()
    t.text('client').notNullable()
    t.text('worker').notNullable().comment("the worker's own name")
    t.bigInteger('drained_at').comment('since then it gets no work, whatever session it has; null: it gets work')
    t.primary(['issuer', 'client', 'worker'])
  })
  await knex.raw('CREATE INDEX workers_drained ON workers (drained_at) WHERE drained_at IS NOT NULL')
  await knex.schema.createTable('sessions', t => {
    t.bigIncrements('id')
    t.text('issuer').notNullable()
    t.text('client').notNullable()
    t.text('worker').notNullable().comment("the worker's own name, for people")
    t.text('version').comment("of the worker's software, for people")
    t.text('public_jwk').notNullable().comment('tokens travel to the session sealed to it')
    t.bigInteger('started_at').notNullable()
    t.bigInteger('expires_at').notNullable()
    t.bigInteger('ended_at')
  })
  await knex.raw('CREATE INDEX sessions_open ON sessions (expires_at) WHERE ended_at IS NULL')

  await knex.schema.createTable('bundles', t => {
    t.bigIncrements('id')
    t.bigInteger('link_id').notNullable().references('links.id')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.bigInteger('source_directory_id').notNullable().references('directories.id')
    t.bigInteger('destination_directory_id').notNullable().references('directories.id')
    t.integer('priority').notNullable()
    t.text('activity').notNullable()
    t.bigInteger('account_id').notNullable().references('accounts.id')
    t.boolean('has_work').notNullable().comment('a hint: some transfer may be queued')
    t.boolean('ready').notNullable().comment('a hint: both grants can be used; the claim looks again')
    t.bigInteger('source_grant_id').references('grants.id')
    t.bigInteger('destination_grant_id').references('grants.id')
    t.bigInteger('served_at').notNullable()
    t.unique(['link_id', 'source_directory_id', 'destination_directory_id', 'priority', 'activity', 'account_id'])
  })
  // Partial: without statistics SQLite would find the unplanned ones by `source_grant_id IS NULL`, and sort them.
  for (const column of ['source_grant_id', 'destination_grant_id']) {
    await knex.raw(`CREATE INDEX bundles_${column} ON bundles (${column}) WHERE ${column} IS NOT NULL`)
  }
  await knex.raw('CREATE INDEX bundles_with_work ON bundles (link_id) WHERE has_work')
  await knex.raw(
    'CREATE INDEX bundles_ready ON bundles (link_id, priority DESC, vo_id, activity, served_at, id) WHERE has_work AND ready',
  )
  await knex.raw(
    'CREATE INDEX bundles_to_plan ON bundles (link_id, priority DESC, vo_id, activity, id) WHERE has_work AND NOT ready AND source_grant_id IS NULL',
  )

  await knex.schema.createTable('activity_shares', t => {
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.text('activity').notNullable()
    t.integer('weight')
      .notNullable()
      .comment('of a link’s places, beside other activities with work there; without a row: 1')
    t.primary(['vo_id', 'activity'])
  })

  await knex.schema.createTable('transfers', t => {
    t.bigIncrements('id')
    t.bigInteger('replica_id').notNullable().references('replicas.id').comment('the destination')
    // Without a reference, which would have every deletion of a replica look through all transfers.
    t.bigInteger('source_replica_id').comment('preferred; null: none is known')
    t.bigInteger('bundle_id').references('bundles.id')
    // Copies of what replica and bundle say, for its indexes; a reference of each would make an insert a tenth slower.
    t.bigInteger('link_id')
    t.bigInteger('source_rse_id')
    t.bigInteger('destination_rse_id').notNullable()
    t.bigInteger('vo_id').notNullable()
    t.bigInteger('account_id').notNullable()
    t.text('activity').notNullable()
    t.integer('priority').notNullable()
    t.bigInteger('bytes').notNullable()
    t.text('state').notNullable()
    t.text('reason').comment('why it waits: a stable code')
    t.integer('attempts').notNullable().comment('those that count')
    t.bigInteger('not_before').notNullable()
    t.bigInteger('session_id').references('sessions.id')
    t.bigInteger('fence').notNullable().comment('above all of earlier epochs, + number of claims: who holds it now')
    t.bigInteger('claimed_at')
    t.bigInteger('written_fence').comment(
      'the claim whose attempt may have left what lies at the destination; null: it is nobody’s of ours',
    )
    t.bigInteger('bytes_done').notNullable()
    t.boolean('cancel_requested').notNullable()
    t.boolean('archive').notNullable().defaultTo(false).comment('a rule wants the copy on tape')
    t.bigInteger('created_at').notNullable()
    t.bigInteger('updated_at').notNullable()
    t.index(['replica_id'])
  })
  const active = `state IN ('CLAIMED', 'COPYING', 'SETTLING')`
  for (const sql of [
    `CREATE UNIQUE INDEX transfers_open ON transfers (replica_id) WHERE state NOT IN ('DONE', 'FAILED', 'CANCELLED')`,
    `CREATE INDEX transfers_queued ON transfers (bundle_id, id) WHERE state = 'QUEUED'`,
    `CREATE INDEX transfers_waiting ON transfers (not_before, destination_rse_id, source_rse_id) WHERE state = 'WAITING'`,
    `CREATE INDEX transfers_to_settle ON transfers (not_before) WHERE state = 'SETTLING' AND session_id IS NULL`,
    `CREATE INDEX transfers_active_source ON transfers (source_rse_id) WHERE ${active}`,
    `CREATE INDEX transfers_active_destination ON transfers (destination_rse_id) WHERE ${active}`,
    `CREATE INDEX transfers_active_link ON transfers (link_id, vo_id, activity) WHERE ${active}`,
    `CREATE INDEX transfers_held ON transfers (session_id) WHERE session_id IS NOT NULL`,
    `CREATE INDEX transfers_staging ON transfers (source_replica_id) WHERE state = 'STAGING'`,
    `CREATE INDEX transfers_archiving ON transfers (vo_id, destination_rse_id) WHERE state = 'ARCHIVING'`,
    `CREATE INDEX transfers_written ON transfers (replica_id) WHERE written_fence IS NOT NULL`,
  ]) {
    await knex.raw(sql)
  }

  await knex.schema.createTable('attempts', t => {
    t.bigIncrements('id')
    t.bigInteger('transfer_id').notNullable().references('transfers.id')
    t.bigInteger('fence').notNullable()
    t.bigInteger('session_id').notNullable()
    t.bigInteger('source_rse_id')
    t.bigInteger('source_grant_id')
    t.bigInteger('destination_grant_id')
    t.text('mode').comment('pull | push | stream: of the last COPY that was sent; null: none was')
    t.text('outcome').notNullable()
    t.bigInteger('started_at').notNullable()
    t.bigInteger('ended_at').notNullable()
    t.bigInteger('bytes').notNullable()
    t.text('scope')
    t.text('phase')
    t.text('code')
    t.text('message').comment("the storage's own words")
    t.unique(['transfer_id', 'fence'])
  })

  await knex.schema.createTable('permits', t => {
    t.bigInteger('directory_id').notNullable().references('directories.id')
    t.text('name').notNullable()
    t.bigInteger('transfer_id').notNullable()
    t.bigInteger('fence').notNullable()
    t.bigInteger('until').notNullable().comment('a DELETE of this path may arrive until then: no new attempt before it')
    t.primary(['directory_id', 'name'])
  })

  await knex.schema.createTable('uploads', t => {
    t.bigInteger('replica_id').notNullable().references('replicas.id')
    t.bigInteger('account_id').notNullable().references('accounts.id')
    t.bigInteger('until').notNullable().comment('what lies there may be a person’s until then: no worker removes it')
    t.primary(['replica_id', 'account_id'])
    t.index(['until'])
  })

  await knex.schema.createTable('imports', t => {
    t.bigIncrements('id')
    t.bigInteger('vo_id').notNullable().references('vos.id')
    t.bigInteger('rse_id').notNullable().references('rses.id')
    t.bigInteger('directory_id').notNullable().references('directories.id')
    t.bigInteger('dataset_id').notNullable().references('dids.id')
    t.bigInteger('account_id').notNullable().references('accounts.id')
    t.bigInteger('grant_id').references('grants.id')
    t.text('state').notNullable().comment('QUEUED | LISTING | DONE | FAILED')
    t.bigInteger('session_id')
    t.bigInteger('fence').notNullable()
    t.bigInteger('part').notNullable().comment('the last part of the list that was taken under this fence')
    t.bigInteger('files').notNullable()
    t.bigInteger('bytes').notNullable()
    t.text('error')
    t.bigInteger('created_at').notNullable()
    t.bigInteger('updated_at').notNullable()
  })
  await knex.raw(`CREATE INDEX imports_open ON imports (id) WHERE state IN ('QUEUED', 'LISTING')`)

  await knex.schema.createTable('idempotency_keys', t => {
    t.text('identity').notNullable()
    t.text('key').notNullable()
    t.text('request').notNullable().comment('SHA-256 of what was asked')
    t.text('answer').notNullable()
    t.bigInteger('at').notNullable()
    t.primary(['identity', 'key'])
    t.index(['at'])
  })
}
