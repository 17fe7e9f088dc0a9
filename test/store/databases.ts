import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Database } from '../../server/database/database.ts'
import { openPostgres } from '../../server/database/postgres.ts'
import { openSqlite } from '../../server/database/sqlite.ts'
import { type Postgres, sharedPostgres } from '../house/postgres.ts'
import { isWanted } from '../interop/components.ts'

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
export const databases: readonly DatabaseKind[] = [
  { name: 'SQLite', open: sqlite },
  ...(isWanted('postgresql') ? [{ name: 'PostgreSQL', open: postgres }] : []),
]

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

let template: Promise<string> | undefined

/** A copy of a database that was migrated once: a tenth of a second, not a second. */
async function postgres(): Promise<TestDatabase> {
  const server = await sharedPostgres()
  template ??= migratedTemplate(server)
  const url = await server.createDatabase(await template)
  const db = openPostgres({ kind: 'postgresql', url, connections: 20 })
  return {
    db,
    async drop() {
      await db.close()
      await server.dropDatabase(url)
    },
  }
}

/** The URL of a database with the schema of today, to be copied. */
export async function migratedTemplate(server: Postgres): Promise<string> {
  const url = await server.createDatabase()
  const db = openPostgres({ kind: 'postgresql', url, connections: 2 })
  await db.migrate()
  await db.close()
  return url
}
