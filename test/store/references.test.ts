import { expect } from 'chai'
import { type Executor, isSqlite, query } from '../../server/database/sql.ts'
import { databases, type TestDatabase } from './databases.ts'

/** Tables of which rows are deleted, by the thousand. */
const DELETED = ['replicas', 'transfers', 'tasks', 'rules']

interface Reference {
  readonly from: string
  readonly column: string
  readonly to: string
}

for (const { name, open } of databases) {
  describe(`what is deleted on ${name}`, () => {
    let test: TestDatabase
    before(async () => {
      test = await open()
    })
    after(() => test.drop())

    it('is looked for by an index wherever it is referred to: else each row costs a look through a whole table', async () => {
      const indexed = new Set((await indexes(test.db.read)).map(({ from, column }) => `${from}.${column}`))
      const references = (await referencesOf(test.db.read)).filter(({ to }) => DELETED.includes(to))
      expect(references.map(({ from }) => from)).to.include.members(['locks', 'hops', 'task_items'])
      const bare = references.map(({ from, column }) => `${from}.${column}`).filter(column => !indexed.has(column))
      expect(bare).to.deep.equal([])
    })
  })
}

async function referencesOf(read: Executor): Promise<Reference[]> {
  return query(
    read,
    isSqlite(read)
      ? `SELECT m.name AS "from", f."from" AS "column", f."table" AS "to"
           FROM sqlite_master AS m JOIN pragma_foreign_key_list(m.name) AS f WHERE m.type = 'table'`
      : `SELECT c.conrelid::regclass::text AS "from", a.attname AS "column", c.confrelid::regclass::text AS "to"
           FROM pg_constraint AS c JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
          WHERE c.contype = 'f'`,
  )
}

/** The first columns of indexes that hold all rows, or all that refer to something. */
async function indexes(read: Executor): Promise<Omit<Reference, 'to'>[]> {
  return query(
    read,
    isSqlite(read)
      ? `SELECT m.tbl_name AS "from", i.name AS "column" FROM sqlite_master AS m JOIN pragma_index_info(m.name) AS i
          WHERE m.type = 'index' AND i.seqno = 0 AND (m.sql IS NULL OR m.sql NOT LIKE '% WHERE %' OR m.sql LIKE '% ' || i.name || ' IS NOT NULL')`
      : `SELECT i.indrelid::regclass::text AS "from", a.attname AS "column"
           FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
          WHERE i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = '(' || a.attname || ' IS NOT NULL)'`,
  )
}
