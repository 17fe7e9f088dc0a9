import { execFile } from 'node:child_process'
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect } from 'chai'
import pg from 'pg'
import type { Database } from '../../server/database/database.ts'
import { fenceBase } from '../../server/database/epoch.ts'
import { moveToPostgres } from '../../server/database/move.ts'
import { openDatabase } from '../../server/database/open.ts'
import { query } from '../../server/database/sql.ts'
import { openSqlite } from '../../server/database/sqlite.ts'
import { alone } from '../../server/database/sqlite-file.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { type Postgres, sharedPostgres } from '../house/postgres.ts'
import { until } from '../house/until.ts'
import { requireComponents } from '../interop/components.ts'
import { rowsOf, schemaOf, tablesOf } from './contents.ts'
import { migratedTemplate } from './databases.ts'
import { everything } from './everything.ts'
import { World } from './world.ts'

const NOW = 1_800_000_000_000
const EPOCH = 1_800_000_000
const WAYBILL = fileURLToPath(new URL('../../bin/waybill.js', import.meta.url))
const EXAMPLE = fileURLToPath(new URL('../../../docs/examples/server.yaml', import.meta.url))

describe('the move from SQLite to PostgreSQL', () => {
  let server: Postgres
  let template: string
  let filled: string
  let directory: string
  let file: string
  let url: string

  before(async function () {
    requireComponents(this, ['postgresql'])
    server = await sharedPostgres()
    template = await migratedTemplate(server)
    filled = await mkdtemp(join(tmpdir(), 'waybill-filled-'))
    const db = openSqlite(join(filled, 'waybill.sqlite'))
    await db.migrate()
    await everything(db)
    await db.close()
  })
  after(() => filled && rm(filled, { recursive: true }))
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'waybill-move-'))
    file = join(directory, 'waybill.sqlite')
    await copyFile(join(filled, 'waybill.sqlite'), file)
    url = await server.createDatabase(template)
  })
  afterEach(async () => {
    await server.dropDatabase(url)
    await rm(directory, { recursive: true })
  })

  const options = () => ({ kind: 'postgresql', url, connections: 2 }) as const
  const move = (from = file) => moveToPostgres(from, options(), NOW)
  const refusalOf = (work: Promise<unknown>): Promise<string> =>
    work.then(String, ({ code, status, message }) => `${status} ${code}: ${message}`)
  async function onPostgres<T>(use: (db: Database) => Promise<T>): Promise<T> {
    const db = openDatabase(options())
    try {
      return await use(db)
    } finally {
      await db.close()
    }
  }
  const change = (...statements: string[]) =>
    alone(file, async connection => {
      for (const sql of statements) await query(connection, sql)
    })

  const tables = () => alone(file, tablesOf)
  const totalOf = async (db: Database): Promise<number> => {
    const counts = (await tables()).map(async table => (await rowsOf(db.read, table)).length)
    return (await Promise.all(counts)).reduce((total, count) => total + count, 0)
  }

  it('takes every row of every table over as it is, in the same schema, and says how many', async () => {
    const schema = await onPostgres(db => schemaOf(db.read))
    const { epoch, rows } = await move()
    expect(epoch).to.equal(EPOCH)
    const names = await tables()
    expect(Object.keys(rows).sort()).to.deep.equal(names.sort())
    const source = openSqlite(file)
    await onPostgres(async db => {
      expect(await schemaOf(db.read)).to.deep.equal(schema)
      for (const table of names) {
        const there = await rowsOf(source.read, table)
        expect(there, `rows of ${table}, for this test`).not.to.be.empty
        expect(rows[table], table).to.equal(there.length)
        if (table !== 'installation') expect(await rowsOf(db.read, table), table).to.deep.equal(there)
      }
      expect(await query(db.read, 'SELECT id, epoch FROM installation')).to.deep.equal([{ id: 1, epoch: EPOCH }])
      const analyzed = `SELECT count(*) AS n FROM pg_class WHERE relname = 'transfers' AND reltuples > 0`
      expect(await query(db.read, analyzed)).to.deep.equal([{ n: 1 }])
    })
    await source.close()
  })

  it('is gone on with: outcomes of what is held, claims in the new epoch, new rows with new keys', async () => {
    await move()
    await onPostgres(async db => {
      const world = await World.of(db)
      const [held] = await world.rows<{ id: number; fence: number; session_id: number }>(
        `SELECT id, fence, session_id FROM transfers WHERE state = 'CLAIMED' AND NOT EXISTS
          (SELECT 1 FROM permits WHERE transfer_id = transfers.id) ORDER BY id`,
      )
      if (held === undefined) throw new Error('none is held')
      const done = { result: 'done', durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false, left: 'nothing' } as const
      const outcomes = [{ ...done, transfer: held.id, fence: held.fence }]
      const answers = await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, held.session_id, outcomes)
      expect(answers.map(({ answer }) => answer)).to.deep.equal(['applied'])

      const session = await world.openSession()
      expect(session).to.be.above(fenceBase(EPOCH))
      const claimed = await world.claim(session, 10, fenceBase(EPOCH))
      expect(claimed).not.to.be.empty
      for (const { fence } of claimed) expect(fence).to.be.above(fenceBase(EPOCH))

      const last = async (table: string) => world.number(`SELECT max(id) AS n FROM ${table}`)
      const before = {
        dids: await last('dids'),
        replicas: await last('replicas'),
        directories: await last('directories'),
        transfers: await last('transfers'),
      }
      await world.dataset('later', 3, 'A')
      expect(await last('dids')).to.equal(before.dids + 4)
      expect(await last('replicas')).to.equal(before.replicas + 3)
      expect(await last('directories')).to.equal(before.directories + 1)
      // The key of a row that is gone is not given out again.
      await world.change(`INSERT INTO scopes (vo_id, name) VALUES (${world.voId}, 'new')`)
      expect(await last('scopes')).to.be.above(5000)
      await world.addRule('later', 'B', 1)
      await world.evaluate()
      expect(await last('transfers')).to.equal(before.transfers + 3)
    })
  })

  it('reads the SQLite file only, and leaves nothing beside it', async () => {
    const before = await readFile(file)
    await move()
    expect(before.equals(await readFile(file))).to.equal(true)
    expect(await readdir(directory)).to.deep.equal(['waybill.sqlite'])
  })

  it('takes what a killed server left in its log, and what a killed move left beside it is not in the way', async () => {
    const running = openSqlite(file)
    await (await World.of(running)).dataset('last', 1, 'A')
    const crashed = join(directory, 'crashed.sqlite')
    for (const part of ['', '-wal']) await copyFile(file + part, crashed + part)
    await running.close()
    for (const part of ['', '-journal']) await writeFile(`${crashed}.moving${part}`, 'half of something')
    await move(crashed)
    await onPostgres(async db => expect(await (await World.of(db)).didId('last')).to.be.above(0))
    expect(await readdir(directory)).not.to.include('crashed.sqlite.moving')
  })

  it('brings the copy of an older database to this version, not the database itself', async () => {
    const later = [
      'deleted_paths',
      'hops',
      'task_items',
      'tasks',
      'replica_faults',
      'destination_health',
      'idempotency_keys',
      'import_directories',
      'import_problems',
      'imports',
      'uploads',
      'permits',
      'attempts',
      'transfers',
      'source_set_members',
      'source_sets',
      'bundles',
      'sessions',
      'workers',
      'activity_shares',
      'link_decisions',
      'link_tuning',
      'link_minutes',
      'link_health',
      'replans',
    ]
    const columns = [
      ['replicas', 'kept'],
      ['replicas', 'purge'],
      ['replicas', 'reap_after'],
      ['rses', 'keep_registered'],
      ['rses', 'tombstone_delay'],
      ['rules', 'purge_replicas'],
    ]
    await change(
      'DROP INDEX replicas_purged',
      ...later.map(table => `DROP TABLE ${table}`),
      ...columns.map(([table, column]) => `ALTER TABLE ${table} DROP COLUMN ${column}`),
      `DELETE FROM knex_migrations WHERE name IN
        ('0004_transfers', '0005_sources', '0006_storages', '0011_imports', '0012_replica_life', '0015_source_sets', '0018_faults')`,
    )
    const { rows } = await move()
    expect(rows).to.include({ transfers: 0, workers: 0 })
    expect(rows.dids).to.be.above(0)
    expect(await tables()).not.to.include('transfers')
  })

  describe('is refused', () => {
    it('where there is no database of this version or an older one that nobody has open', async () => {
      expect(await refusalOf(move(join(directory, 'none')))).to.match(
        /^400 DATABASE_MISSING: there is no database .*none$/,
      )
      await writeFile(join(directory, 'text'), 'this is no database')
      expect(await refusalOf(move(join(directory, 'text')))).to.match(
        /^400 DATABASE_UNREADABLE: .*is no database of Waybill/,
      )
      await writeFile(join(directory, 'nothing'), '')
      expect(await refusalOf(move(join(directory, 'nothing')))).to.match(/^400 DATABASE_UNREADABLE/)
      const running = openSqlite(file)
      await running.epoch()
      expect(await refusalOf(move())).to.match(/^400 DATABASE_IN_USE: a server has .* open: stop it first$/)
      await running.close()
      await change(`INSERT INTO knex_migrations (name, batch) VALUES ('9999_later', 9)`)
      expect(await refusalOf(move())).to.match(
        /^400 DATABASE_UNREADABLE: .*cannot be brought to this version.*9999_later/,
      )
      expect(await onPostgres(totalOf)).to.equal(1)
    })

    it('to SQLite', async () => {
      const refusal = await refusalOf(moveToPostgres(file, { kind: 'sqlite', file: join(directory, 'other') }, NOW))
      expect(refusal).to.match(/^400 DATABASE_NOT_POSTGRESQL/)
    })

    it('where a server has the PostgreSQL database open', async () => {
      await onPostgres(async db => {
        await db.epoch()
        expect(await refusalOf(move())).to.match(/^400 DATABASE_IN_USE: a server has the database open/)
      })
    })

    it('where PostgreSQL holds anything, also what comes in at the last moment', async () => {
      await onPostgres(db => db.write(e => query(e, "INSERT INTO issuers (url, next_at) VALUES ('i', 0)")))
      expect(await refusalOf(move())).to.match(/^400 DATABASE_NOT_EMPTY: .*\(issuers\)/)
      await onPostgres(db => db.write(e => query(e, 'DELETE FROM issuers')))
      const stranger = new pg.Client(url)
      await stranger.connect()
      await stranger.query('BEGIN')
      await stranger.query("INSERT INTO vos (name) VALUES ('late')")
      const refused = refusalOf(move())
      const waiting = 'SELECT count(*) AS n FROM pg_locks WHERE NOT granted'
      await until(
        async () => Number((await stranger.query(waiting)).rows[0].n),
        count => count > 0,
      )
      await stranger.query('COMMIT')
      await stranger.end()
      expect(await refused).to.match(/^400 DATABASE_NOT_EMPTY: .*\(vos\)/)
    })

    it('where PostgreSQL has other tables', async () => {
      await onPostgres(db => db.write(e => query(e, `CREATE TABLE "what's ""theirs""" (id bigint)`)))
      expect(await refusalOf(move())).to.match(/^400 SCHEMA_DIFFERS: .*what's "theirs"\.id/)
    })

    const rows: [string, string[], RegExp][] = [
      [
        'a NUL',
        [`UPDATE transfers SET reason = 'a' || char(0) WHERE id = 3`],
        /transfers, id 3: reason is a text with a NUL/,
      ],
      ['a truth that is none', ['UPDATE rules SET archive = 2'], /rules, id 1: archive is no boolean/],
      [
        'a word for a number',
        [`UPDATE replicas SET updated_at = 'now' WHERE id = 2`],
        /replicas, id 2: updated_at is no bigint/,
      ],
      [
        'a large number',
        ['UPDATE rse_protocols SET priority = 2147483648'],
        /rse_protocols, id 1: priority is no integer/,
      ],
      [
        'bytes for a text',
        [`UPDATE rse_attributes SET value = x'00ff'`],
        /rse_attributes, rse_id 3, key tier: value is no text/,
      ],
      [
        'a row that is referred to and missing',
        ['DELETE FROM sessions'],
        /transfers breaks transfers_session_id_foreign/,
      ],
    ]
    for (const [what, statements, message] of rows) {
      it(`with ${what}; nothing is moved then, and it can be repeated`, async () => {
        const good = await readFile(file)
        await change(...statements)
        const schema = await onPostgres(db => schemaOf(db.read))
        const refusal = await refusalOf(move())
        expect(refusal).to.match(/^400 ROW_REFUSED/)
        expect(refusal).to.match(message)
        expect(await readdir(directory)).to.deep.equal(['waybill.sqlite'])
        await onPostgres(async db => {
          expect(await db.epoch()).to.equal(1)
          expect(await totalOf(db)).to.equal(1)
          expect(await schemaOf(db.read)).to.deep.equal(schema)
        })
        await writeFile(file, good)
        expect((await move()).epoch).to.equal(EPOCH)
      })
    }
  })

  it('is a command, on a database that has no schema yet', async () => {
    const empty = await server.createDatabase()
    const [config, secret] = [join(directory, 'server.yaml'), join(directory, 'secret')]
    await writeFile(secret, 'secret')
    const example = (await readFile(EXAMPLE, 'utf8')).replace(/file: .*\.sqlite/, `url: ${empty}`)
    await writeFile(config, example.replace(/clientSecretFile: .*/, `clientSecretFile: ${secret}`))
    const run = (...more: string[]) =>
      promisify(execFile)(process.execPath, [WAYBILL, 'migrate', '--config', config, '--from', file, ...more])
    const { stdout } = await run('--json')
    const said = JSON.parse(stdout)
    expect(said.done).to.match(/^PostgreSQL has all of .*waybill\.sqlite, in epoch \d+; .*dids 14, /)
    expect(said.rows).to.include({ dids: 14, vos: 1 })
    const failure = await run().catch(error => error)
    expect(failure.code).to.equal(1)
    expect(failure.stderr).to.match(/make an empty one, and name that\n {2}code: DATABASE_NOT_EMPTY/)
    await server.dropDatabase(empty)
  })
})
