import { join } from 'node:path'
import type { Database } from '../../server/database/database.ts'
import { openPostgres } from '../../server/database/postgres.ts'
import { openSqlite } from '../../server/database/sqlite.ts'
import { environment } from '../../shared/runtime/environment.ts'
import type { Leaks } from './leaks.ts'
import { type Postgres, sharedPostgres } from './postgres.ts'

/** What the rules server of a house keeps everything in. */
export interface HouseDatabase {
  /** As the server's configuration has it. */
  readonly config: object
  /** Where `Leaks` has what stands in it. */
  readonly place: string
  /** Another connection to it; whoever opens it closes it. */
  open(): Database
  /** All that stands in it now is searched for secrets. */
  seenBy(leaks: Leaks): Promise<void>
  drop(): Promise<void>
}

/** SQLite, or PostgreSQL with `TEST_DATABASE=postgresql`: `npm test` runs the suites of the whole path on each. */
export function newHouseDatabase(directory: string): Promise<HouseDatabase> {
  return environment.TEST_DATABASE === 'postgresql'
    ? inPostgres(sharedPostgres())
    : inFile(join(directory, 'waybill.sqlite'))
}

export async function inFile(file: string): Promise<HouseDatabase> {
  return {
    config: { file },
    place: file,
    open: () => openSqlite(file),
    async seenBy(leaks) {
      for (const part of [file, `${file}-wal`]) await leaks.sawFile(part)
    },
    drop: async () => undefined,
  }
}

export async function inPostgres(running: Promise<Postgres>): Promise<HouseDatabase> {
  const server = await running
  const url = await server.createDatabase()
  return {
    config: { url },
    place: url,
    open: () => openPostgres({ kind: 'postgresql', url, connections: 2 }),
    seenBy: async leaks => leaks.saw(url, await server.dump(url)),
    drop: () => server.dropDatabase(url),
  }
}
