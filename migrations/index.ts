import type { Knex } from 'knex'
import * as catalogue from './0001_catalogue.ts'
import * as rules from './0002_rules.ts'
import * as tokens from './0003_tokens.ts'
import * as transfers from './0004_transfers.ts'
import * as sources from './0005_sources.ts'
import * as storages from './0006_storages.ts'
import * as repair from './0007_repair.ts'
import * as ruleParts from './0008_rule_parts.ts'
import * as selection from './0009_selection.ts'
import * as accounts from './0010_accounts.ts'
import * as imports from './0011_imports.ts'
import * as replicaLife from './0012_replica_life.ts'
import * as detached from './0013_detached.ts'
import * as ruleLife from './0014_rule_life.ts'
import * as sourceSets from './0015_source_sets.ts'
import * as foundErrors from './0016_found_errors.ts'
import * as turns from './0017_turns.ts'
import * as faults from './0018_faults.ts'
import * as paths from './0019_paths.ts'

interface Migration {
  name: string
  up(knex: Knex): Promise<void>
}

/** Append only: what was released is never edited. There is no way down but a backup. */
const MIGRATIONS: readonly Migration[] = [
  { name: '0001_catalogue', ...catalogue },
  { name: '0002_rules', ...rules },
  { name: '0003_tokens', ...tokens },
  { name: '0004_transfers', ...transfers },
  { name: '0005_sources', ...sources },
  { name: '0006_storages', ...storages },
  { name: '0007_repair', ...repair },
  { name: '0008_rule_parts', ...ruleParts },
  { name: '0009_selection', ...selection },
  { name: '0010_accounts', ...accounts },
  { name: '0011_imports', ...imports },
  { name: '0012_replica_life', ...replicaLife },
  { name: '0013_detached', ...detached },
  { name: '0014_rule_life', ...ruleLife },
  { name: '0015_source_sets', ...sourceSets },
  { name: '0016_found_errors', ...foundErrors },
  { name: '0017_turns', ...turns },
  { name: '0018_faults', ...faults },
  { name: '0019_paths', ...paths },
]

export const migrationSource: Knex.MigrationSource<Migration> = {
  getMigrations: async () => [...MIGRATIONS],
  getMigrationName: migration => migration.name,
  getMigration: async migration => ({
    up: migration.up,
    down: async () => {
      throw new Error('migrations only go up: restore a backup instead')
    },
  }),
}
