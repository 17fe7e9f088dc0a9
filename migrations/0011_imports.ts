import type { Knex } from 'knex'

/**
 * What of an import is still to be listed, so that whoever has it next goes on where it was; and what of it could not be taken over.
 * Imports that were not done when this came begin anew, which registers nothing twice.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('import_directories', t => {
    t.bigIncrements('id')
    t.bigInteger('import_id').notNullable().references('imports.id')
    t.text('path').notNullable().comment('below the imported directory, which is the empty one')
    t.text('done_until').comment(
      'the last name in it that was taken, in the order of the workers; null: it was not begun',
    )
    t.unique(['import_id', 'path'])
  })
  // The one that was begun goes on, then the deepest: there is no more to come than lies beside the way down.
  await knex.raw(
    'CREATE INDEX import_directories_next ON import_directories (import_id, (done_until IS NULL), id DESC)',
  )
  await knex.schema.createTable('import_problems', t => {
    t.bigIncrements('id')
    t.bigInteger('import_id').notNullable().references('imports.id')
    t.text('path').notNullable().comment('below the imported directory, as a JSON string: it may have any characters')
    t.text('code').notNullable()
    t.text('message').notNullable()
    t.index(['import_id', 'id'])
  })
  const columns = [
    "checksum text NOT NULL DEFAULT 'storage'",
    'present bigint NOT NULL DEFAULT 0',
    'left_out bigint NOT NULL DEFAULT 0',
    'directories bigint NOT NULL DEFAULT 0',
    'directories_left bigint NOT NULL DEFAULT 0',
    'failures integer NOT NULL DEFAULT 0',
    'not_before bigint NOT NULL DEFAULT 0',
  ]
  for (const column of columns) await knex.raw(`ALTER TABLE imports ADD COLUMN ${column}`)
  await knex.raw(
    `INSERT INTO import_directories (import_id, path) SELECT id, '' FROM imports WHERE state <> 'DONE' ORDER BY id`,
  )
  await knex.raw(`UPDATE imports SET files = 0, bytes = 0, directories_left = 1 WHERE state <> 'DONE'`)
}
