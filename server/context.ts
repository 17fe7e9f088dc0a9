import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import type { Random } from '../shared/runtime/random.ts'
import type { Database } from './database/database.ts'
import type { StorageDirectory } from './storages/directory.ts'
import type { Wake } from './wake.ts'

/** What every room of the server works with. */
export interface Context {
  readonly db: Database
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
  readonly storages: StorageDirectory
  readonly wake: Wake
}
