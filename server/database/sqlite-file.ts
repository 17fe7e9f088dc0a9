import { open, rm, stat } from 'node:fs/promises'
import knex, { type Knex } from 'knex'

/** A copy holds all that the database does. */
export const OWNER_ONLY = 0o600

/** One connection, without a wait for others. */
export async function alone<T>(filename: string, use: (connection: Knex) => Promise<T>): Promise<T> {
  const connection = knex({
    client: 'sqlite3',
    connection: { filename },
    useNullAsDefault: true,
    // Errors tell the statement without what was bound.
    compileSqlOnError: false,
    pool: { min: 1, max: 1 },
  })
  try {
    return await use(connection)
  } finally {
    await connection.destroy()
  }
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

/** A power cut after it loses nothing of a file, or of what a directory lists. */
export async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** With what SQLite keeps beside it. */
export async function removeDatabase(file: string): Promise<void> {
  await rm(file, { force: true })
  await removeJournals(file)
}

/** A journal that stays is played into the next file of that name. */
export async function removeJournals(file: string): Promise<void> {
  for (const part of ['-journal', '-wal', '-shm']) await rm(file + part, { force: true })
}
