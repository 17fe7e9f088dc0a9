import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { backupSqlite } from '../../server/database/backup.ts'
import { beginEpoch, fenceBase } from '../../server/database/epoch.ts'
import { openDatabase } from '../../server/database/open.ts'
import { restore } from '../../server/database/restore.ts'
import { query } from '../../server/database/sql.ts'
import { openSqlite } from '../../server/database/sqlite.ts'
import { sharedPostgres } from '../house/postgres.ts'
import { requireComponents } from '../interop/components.ts'
import { World } from './world.ts'

const NOW = 1_800_000_000_000

describe('backups', () => {
  let directory: string
  let file: string
  let copy: string
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'waybill-backup-'))
    file = join(directory, 'waybill.sqlite')
    copy = join(directory, 'backup.sqlite')
  })
  afterEach(() => rm(directory, { recursive: true }))

  const codeOf = (work: Promise<unknown>): Promise<unknown> =>
    work.then(String, (error: { code: unknown }) => error.code)
  const put = (from: string | undefined, now = NOW) => restore({ kind: 'sqlite', file }, from, now)

  async function filled(): Promise<void> {
    const db = openSqlite(file)
    await db.migrate()
    const world = await World.make(db, { rses: ['A', 'B'] })
    await world.dataset('d', 3, 'A')
    // Written while a server has it open.
    await backupSqlite(file, copy)
    await world.dataset('later', 3, 'A')
    await db.close()
  }
  async function datasets(): Promise<number> {
    const db = openSqlite(file)
    const found = await (await World.of(db)).number("SELECT count(*) AS n FROM dids WHERE type = 'DATASET'")
    await db.close()
    return found
  }

  it('are copies of the whole, and come back in a new epoch; what was there is kept', async () => {
    await filled()
    expect(await datasets()).to.equal(2)
    expect(await put(copy)).to.match(/epoch 1800000000; what was there is .*\.replaced-1800000000$/)
    expect(await datasets()).to.equal(1)
    expect((await readdir(directory)).sort()).to.deep.equal([
      'backup.sqlite',
      'waybill.sqlite',
      'waybill.sqlite.replaced-1800000000',
    ])
  })

  it('begin another epoch each time, even in one second, so that no fence is given out twice', async () => {
    await filled()
    await put(copy)
    const db = openSqlite(file)
    const first = await db.epoch()
    await db.close()
    await put(copy, NOW + 1)
    const again = openSqlite(file)
    const second = await again.epoch()
    await again.close()
    expect(second).to.be.above(first)
    expect(fenceBase(second) - fenceBase(first)).to.be.at.least(2 ** 20)
    expect(Number.isSafeInteger(fenceBase(second) + 2 ** 20)).to.equal(true)
  })

  it('give no session a number that one of the time after the backup had', async () => {
    await filled()
    const before = openSqlite(file)
    const world = await World.of(before)
    const lost = [await world.openSession(), await world.openSession()]
    await before.close()
    await put(copy)
    const after = openSqlite(file)
    const session = await (await World.of(after)).openSession()
    await after.close()
    expect(lost).not.to.include(session)
    expect(session).to.be.above(fenceBase(1_800_000_000))
    expect(Number.isSafeInteger(session)).to.equal(true)
  })

  it('come back in the place of a damaged database, which is kept', async () => {
    await filled()
    await writeFile(file, 'this is no database any more')
    expect(await put(copy)).to.match(/what was there is/)
    expect(await datasets()).to.equal(1)
    expect(await readFile(`${file}.replaced-1800000000`, 'utf8')).to.equal('this is no database any more')
  })

  it('are for who runs the server only', async () => {
    await filled()
    await put(copy)
    for (const path of [copy, file]) expect((await stat(path)).mode & 0o777).to.equal(0o600)
  })

  it('are refused where they would destroy something, or hold nothing', async () => {
    await writeFile(join(directory, 'no-database'), 'text')
    expect(await codeOf(backupSqlite(file, copy))).to.equal('DATABASE_MISSING')
    await filled()
    expect(await codeOf(backupSqlite(file, copy))).to.equal('BACKUP_EXISTS')
    expect(await codeOf(put(join(directory, 'none')))).to.equal('BACKUP_MISSING')
    expect(await codeOf(put(undefined))).to.equal('BACKUP_UNNAMED')
    expect(await codeOf(put(join(directory, 'no-database')))).to.equal('BACKUP_UNREADABLE')
    const server = openSqlite(file)
    await server.epoch()
    expect(await codeOf(put(copy))).to.equal('DATABASE_IN_USE')
    await server.close()
    expect(await datasets()).to.equal(2)
    expect((await readdir(directory)).filter(name => /part|restoring/.test(name))).to.deep.equal([])
  })

  it('of a newer version are refused, and that is said; so is its database', async () => {
    await filled()
    const backup = openSqlite(copy)
    await backup.write(e => query(e, "INSERT INTO knex_migrations (name, batch) VALUES ('9999_future', 2)"))
    await backup.close()
    expect(await codeOf(put(copy))).to.equal('DATABASE_NEWER')
    const newer = openSqlite(copy)
    expect(await codeOf(newer.migrate())).to.equal('DATABASE_NEWER')
    await newer.close()
    expect(await datasets()).to.equal(2)
  })

  it('are restored by one at a time', async () => {
    await filled()
    const aside = `${file}.restoring`
    await writeFile(aside, 'of another')
    expect(await codeOf(put(copy))).to.equal('RESTORE_UNDER_WAY')
    expect(await readFile(aside, 'utf8')).to.equal('of another')
    expect(await datasets()).to.equal(2)
    await rm(aside)
    await put(copy)
    expect(await datasets()).to.equal(1)
  })

  it('of PostgreSQL come back by its own means, and then begin a new epoch', async function () {
    requireComponents(this, ['postgresql'])
    const server = await sharedPostgres()
    const url = await server.createDatabase()
    const options = { kind: 'postgresql', url, connections: 2 } as const
    try {
      expect(await restore(options, undefined, NOW)).to.equal('the database is in epoch 1800000000')
      expect(await restore(options, undefined, NOW)).to.equal('the database is in epoch 1800000001')
      const running = openDatabase(options)
      expect(await running.epoch()).to.equal(1_800_000_001)
      expect(await codeOf(restore(options, undefined, NOW))).to.equal('DATABASE_IN_USE')
      const session = await (await World.make(running, { rses: ['A'] })).openSession()
      expect(session).to.be.above(fenceBase(1_800_000_001))
      await running.close()
      expect(await codeOf(restore(options, copy, NOW))).to.equal('BACKUP_ELSEWHERE')
    } finally {
      await server.dropDatabase(url)
    }
  })

  it('migrations are safe when several servers start at once, and after one was killed in the middle', async function () {
    requireComponents(this, ['postgresql'])
    const server = await sharedPostgres()
    const url = await server.createDatabase()
    const open = () => openDatabase({ kind: 'postgresql', url, connections: 2 })
    const servers = Array.from({ length: 5 }, open)
    try {
      await Promise.all(servers.map(db => db.migrate()))
      const [first] = servers
      if (first === undefined) throw new Error('no server')
      await first.write(e => e.raw('UPDATE knex_migrations_lock SET is_locked = 1'))
      await Promise.all(servers.map(db => db.migrate()))
      expect(await first.epoch()).to.equal(1)
      expect(await first.write(e => beginEpoch(e, 0))).to.equal(2)
    } finally {
      for (const db of servers) await db.close()
      await server.dropDatabase(url)
    }
  })
})
