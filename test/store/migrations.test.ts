import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import knex from 'knex'
import { migrationSource } from '../../migrations/index.ts'
import { query } from '../../server/database/sql.ts'
import { openSqlite } from '../../server/database/sqlite.ts'

/** One of each that others refer to, down to an attempt. */
const ROWS = [
  `INSERT INTO vos (id, name) VALUES (1, 'vo')`,
  `INSERT INTO accounts (id, vo_id, name, created_at) VALUES (1, 1, 'a', 0)`,
  `INSERT INTO rses (id, name, layout, checksum, availability_read, availability_write, availability_delete, max_inbound,
                     max_outbound, max_staging, max_deletions, checksum_policy, watchdogs, tape, multihop, created_at)
   VALUES (1, 'A', 'dataset', 'md5', true, true, true, 1, 1, 1, 1, 'both', '{}', false, false, 0)`,
  `INSERT INTO scopes (id, vo_id, name) VALUES (1, 1, 's')`,
  `INSERT INTO dids (id, scope_id, name, type, bytes, files, is_open, account_id, created_at)
   VALUES (1, 1, 'f', 'FILE', 1, 1, false, 1, 0)`,
  `INSERT INTO directories (id, rse_id, path) VALUES (1, 1, '/d')`,
  `INSERT INTO replicas (id, file_id, rse_id, directory_id, name, state, lock_count, updated_at)
   VALUES (1, 1, 1, 1, 'f', 'AVAILABLE', 0, 0)`,
  // No transfer has brought it.
  `INSERT INTO dids (id, scope_id, name, type, bytes, files, is_open, account_id, created_at)
   VALUES (2, 1, 'g', 'FILE', 1, 1, false, 1, 0)`,
  `INSERT INTO replicas (id, file_id, rse_id, directory_id, name, state, lock_count, tombstone_at, updated_at)
   VALUES (2, 2, 1, 1, 'g', 'AVAILABLE', 0, 5, 0)`,
  `INSERT INTO transfers (id, replica_id, destination_rse_id, vo_id, account_id, activity, priority, bytes, state, attempts,
                          not_before, fence, bytes_done, cancel_requested, created_at, updated_at)
   VALUES (1, 1, 1, 1, 1, 'x', 3, 1, 'DONE', 1, 0, 1, 1, false, 0, 0)`,
  `INSERT INTO rules (id, vo_id, did_id, account_id, copies, expression, activity, priority, archive, state, stage, dirty,
                      cursor_choice, cursor_file, locks_ok, locks_replicating, locks_stuck, problems, repairs, created_at, updated_at)
   VALUES (1, 1, 1, 1, 1, 'A', 'x', 3, false, 'REPLICATING', 'EXPANDING', false, 0, 7, 0, 0, 0, 0, 0, 0, 0)`,
  `INSERT INTO imports (id, vo_id, rse_id, directory_id, dataset_id, account_id, state, fence, part, files, bytes, created_at, updated_at)
   VALUES (1, 1, 1, 1, 1, 1, 'LISTING', 1, 3, 1500, 9, 0, 0), (2, 1, 1, 1, 1, 1, 'DONE', 1, 1, 5, 9, 0, 0)`,
  `INSERT INTO rule_choices (id, rule_id, dataset_id, rse_id) VALUES (1, 1, 1, 1)`,
  `INSERT INTO attempts (transfer_id, fence, session_id, outcome, started_at, ended_at, bytes) VALUES (1, 1, 1, 'done', 0, 0, 1)`,
]

describe('a migration of a SQLite database that is in use', () => {
  let directory: string
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'waybill-migrations-'))
  })
  afterEach(() => rm(directory, { recursive: true }))

  it('keeps what is there, and what refers to it', async () => {
    const file = join(directory, 'waybill.sqlite')
    const old = knex({ client: 'sqlite3', connection: { filename: file }, useNullAsDefault: true, pool: { max: 1 } })
    for (const name of ['0001_catalogue', '0002_rules', '0003_tokens', '0004_transfers']) {
      await old.migrate.up({ migrationSource, name })
    }
    for (const sql of ROWS) await query(old, sql)
    await old.destroy()
    const db = openSqlite(file)
    try {
      await db.migrate()
      expect(
        await query(db.read, 'SELECT transfer_id FROM attempts JOIN transfers ON transfers.id = transfer_id'),
      ).to.deep.equal([{ transfer_id: 1 }])
      expect(
        await query(
          db.read,
          'SELECT stage, cursor_file, part.did_id, later, grown FROM rules JOIN rule_parts AS part ON rule_id = id',
        ),
        'a rule that was at work',
      ).to.deep.equal([{ stage: 'CHOOSING', cursor_file: 0, did_id: 1, later: 0, grown: 1 }])
      expect(
        await query(
          db.read,
          'SELECT imports.id, files, directories_left, path FROM imports LEFT JOIN import_directories ON import_id = imports.id ORDER BY 1',
        ),
        'an import that was at work begins anew, one that was done is',
      ).to.deep.equal([
        { id: 1, files: 0, directories_left: 1, path: '' },
        { id: 2, files: 5, directories_left: 0, path: null },
      ])
      expect(
        await query(db.read, 'SELECT id, kept, tombstone_at FROM replicas ORDER BY id'),
        'what was registered, and was to be deleted',
      ).to.deep.equal([
        { id: 1, kept: 0, tombstone_at: null },
        { id: 2, kept: 1, tombstone_at: null },
      ])
      expect(await query(db.read, 'PRAGMA foreign_key_check')).to.deep.equal([])
    } finally {
      await db.close()
    }
  })
})
