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
  readonly name: 'SQLite' | 'PostgreSQL'
  open(): Promise<TestDatabase>
}

/** Every suite in this directory runs on each of these. */
export const databases = databasesOn(sharedPostgres)

/** PostgreSQL only where it is installed, or must be. */
export function databasesOn(server: () => Promise<Postgres>): readonly DatabaseKind[] {
  let template: Promise<string> | undefined
  const onPostgres = {
    name: 'PostgreSQL' as const,
    async open() {
      template ??= server().then(migratedTemplate)
      return postgres(await server(), await template)
    },
  }
  return [{ name: 'SQLite', open: sqlite }, ...(isWanted('postgresql') ? [onPostgres] : [])]
}

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

/** A copy of a database that was migrated once: a tenth of a second, not a second. */
async function postgres(server: Postgres, template: string): Promise<TestDatabase> {
  const url = await server.createDatabase(template)
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
