import { join } from 'node:path'
import { type HouseDatabase, inFile, inPostgres } from '../test/house/database.ts'
import { type Postgres, startPostgres } from '../test/house/postgres.ts'
import { databasesOn, type TestDatabase } from '../test/store/databases.ts'
import type { Bench } from './harness.ts'

/** A database as sites run it: every commit is synced to the disk, other than in the tests. */
export interface BenchDatabase {
  readonly name: 'SQLite' | 'PostgreSQL'
  /** With the schema of today, and in it nothing. */
  open(): Promise<TestDatabase>
  /** For `startHouse`. What stands in it isn't searched for secrets: it is too much. */
  house(directory: string): Promise<HouseDatabase>
}

let server: Promise<Postgres> | undefined

function postgres(): Promise<Postgres> {
  server ??= startPostgres()
  return server
}

export const benchDatabases: readonly BenchDatabase[] = databasesOn(postgres).map(kind => ({
  ...kind,
  async house(directory) {
    const file = join(directory, 'waybill.sqlite')
    const inHouse = await (kind.name === 'SQLite' ? inFile(file) : inPostgres(postgres()))
    return { ...inHouse, seenBy: async () => undefined }
  },
}))

/** Says how the databases of `benchDatabases` are set. */
export function describeDatabases(bench: Bench): void {
  bench.condition('SQLite: WAL, synchronous FULL, a file on the disk of the temporary directory')
  bench.condition(
    "PostgreSQL: Debian's defaults (128 MB of shared buffers), fsync and synchronous_commit on, same disk, same machine",
  )
}
