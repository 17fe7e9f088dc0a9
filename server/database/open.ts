import type { Database } from './database.ts'
import { openPostgres, type PostgresOptions } from './postgres.ts'
import { openSqlite } from './sqlite.ts'

export type DatabaseOptions = { readonly kind: 'sqlite'; readonly file: string } | PostgresOptions

export function openDatabase(options: DatabaseOptions): Database {
  return options.kind === 'sqlite' ? openSqlite(options.file) : openPostgres(options)
}
