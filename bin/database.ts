import type { Command } from 'commander'
import { readServerConfig, serverConfigSchema } from '../server/config.ts'
import type { DatabaseOptions } from '../server/database/open.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { systemClock } from '../shared/runtime/clock.ts'
import { flagsOf } from '../shared/runtime/config.ts'
import { systemTerminal } from '../shared/runtime/terminal.ts'
import { addSettings, CONFIG_HELP, readSecretFile, sourcesOf } from './configured.ts'

/** The commands for who keeps the rules server's database. */
export function addDatabaseCommands(program: Command): void {
  addMigrateCommand(program)
  addBackupCommand(program)
  addRestoreCommand(program)
}

/** The database that the server's configuration names. */
function databaseOf(command: Command, own: readonly string[] = []): DatabaseOptions {
  return readServerConfig(sourcesOf(command, [...own, 'json']), readSecretFile).database
}

/** What was done, in words or as JSON, which may tell more. */
function say(command: Command, text: string, more: object = {}): void {
  const { json } = command.opts<{ json?: true }>()
  systemTerminal.out(json === true ? `${JSON.stringify({ done: text, ...more })}\n` : `${text}\n`)
}

function addServerSettings(command: Command, example: string): Command {
  command.option('--json', 'the answer as JSON')
  return addSettings(command, flagsOf(serverConfigSchema(readSecretFile))).addHelpText(
    'after',
    `${CONFIG_HELP}\n\nExamples:\n  $ waybill ${example}`,
  )
}

function addMigrateCommand(program: Command): void {
  const command = program
    .command('migrate')
    .description('bring the database of the rules server to this version, or a SQLite database to PostgreSQL')
    .option('--from <file>', 'a SQLite database that no server has open: all of it, into an empty PostgreSQL database')
  const example = 'migrate --config /etc/waybill/server.yaml'
  addServerSettings(command, `${example}\n  $ waybill ${example} --from /var/lib/waybill/waybill.sqlite`).action(
    async () => {
      const { from } = command.opts<{ from?: string }>()
      const database = databaseOf(command, ['from'])
      if (from === undefined) await migrate(command, database)
      else await move(command, from, database)
    },
  )
}

async function migrate(command: Command, database: DatabaseOptions): Promise<void> {
  const { openDatabase } = await import('../server/database/open.ts')
  const db = openDatabase(database)
  try {
    await db.migrate()
  } finally {
    await db.close()
  }
  say(command, 'the database is of this version')
}

async function move(command: Command, from: string, database: DatabaseOptions): Promise<void> {
  const { moveToPostgres } = await import('../server/database/move.ts')
  const moved = await moveToPostgres(from, database, systemClock.now())
  const rows = Object.entries(moved.rows).filter(([, count]) => count > 0)
  const list = rows.map(([table, count]) => `${table} ${count}`).join(', ')
  say(
    command,
    `PostgreSQL has all of ${from}, in epoch ${moved.epoch}; keep the vault's key file, which is not in it. Rows: ${list}`,
    moved,
  )
}

function addBackupCommand(program: Command): void {
  const command = program
    .command('backup')
    .description('copy the SQLite database of the rules server, also while it runs')
    .requiredOption('--to <file>', 'where to; nothing may be there yet')
  addServerSettings(command, 'backup --config /etc/waybill/server.yaml --to /backup/waybill.sqlite').action(
    async () => {
      const { to } = command.opts<{ to: string }>()
      const database = databaseOf(command, ['to'])
      if (database.kind !== 'sqlite') {
        throw new WaybillError('BACKUP_ELSEWHERE', 'PostgreSQL is backed up by its own means: see docs/operations.md')
      }
      const { backupSqlite } = await import('../server/database/backup.ts')
      await backupSqlite(database.file, to)
      say(command, `${to} is a copy of ${database.file}; keep the vault's key file apart from it`)
    },
  )
}

function addRestoreCommand(program: Command): void {
  const command = program
    .command('restore')
    .description(
      'put a backup in the place of the SQLite database; for PostgreSQL, which was restored before: begin a new epoch',
    )
    .option('--from <file>', 'the backup; SQLite only')
  addServerSettings(command, 'restore --config /etc/waybill/server.yaml --from /backup/waybill.sqlite').action(
    async () => {
      const { from } = command.opts<{ from?: string }>()
      const { restore } = await import('../server/database/restore.ts')
      say(command, await restore(databaseOf(command, ['from']), from, systemClock.now()))
    },
  )
}
