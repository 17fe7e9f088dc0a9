import type { Knex } from 'knex'

/**
 * What of a rule's DID is still to be chosen for, and which of its choices are to be worked off: so that what is attached costs what
 * it is, and not the whole rule once more. Rules that were at work when this came begin a pass over all they have.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('rule_parts', t => {
    t.bigInteger('rule_id').notNullable().references('rules.id')
    t.boolean('later').notNullable().comment('it came while the rule was at work: for its next pass')
    t.bigInteger('did_id')
      .notNullable()
      .references('dids.id')
      .comment('at or below the rule’s DID: storages are chosen for what it holds')
    t.boolean('grown').notNullable().comment('files may have come to what was chosen for before')
    t.primary(['rule_id', 'later', 'did_id'])
    t.index(['did_id'])
  })
  await knex.schema.alterTable('rule_choices', t => {
    t.boolean('todo').notNullable().defaultTo(false).comment('some of its files may have no lock yet')
  })
  await knex.raw(
    `INSERT INTO rule_parts (rule_id, later, did_id, grown) SELECT id, false, did_id, true FROM rules WHERE stage IN ('CHOOSING', 'EXPANDING')`,
  )
  await knex.raw(
    `UPDATE rules SET stage = 'CHOOSING', cursor_choice = 0, cursor_file = 0 WHERE stage IN ('CHOOSING', 'EXPANDING')`,
  )
  await knex.raw('ALTER TABLE rules DROP COLUMN dirty')
  await knex.raw('CREATE INDEX rule_choices_todo ON rule_choices (rule_id, id) WHERE todo')
}
