import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Database, openSqlite } from '../../server/database/database.ts'

/** An empty database with the schema of today. `drop` closes it and leaves nothing behind. */
export interface TestDatabase {
  readonly db: Database
  drop(): Promise<void>
}

interface DatabaseKind {
  readonly name: string
  open(): Promise<TestDatabase>
}

/** Every suite in this directory runs on each of these. */
export const databases: readonly DatabaseKind[] = [{ name: 'SQLite', open: sqlite }]

async function sqlite(): Promise<TestDatabase> {
  const directory = await mkdtemp(join(tmpdir(), 'waybill-store-'))
  const db = openSqlite(join(directory, 'test.sqlite'))
  await db.migrate()
  return {
    db,
    async drop() {
      await db.close()
      await rm(directory, { recursive: true })
    },
  }
}
