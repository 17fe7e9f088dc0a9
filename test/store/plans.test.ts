import { expect } from 'chai'
import type { Database } from '../../server/database/database.ts'
import { type Binding, type Executor, isSqlite, query } from '../../server/database/sql.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { expireGrants } from '../../server/tokens/expire.ts'
import { grantsToMint, grantsToMintAnew, grantsToRenew } from '../../server/tokens/grant-store.ts'
import { unplannedBundles } from '../../server/tokens/unplanned.ts'
import { listActivities } from '../../server/transfers/activity-store.ts'
import { alignSources } from '../../server/transfers/align.ts'
import { claimOnLink, claimToSettle, linksToServe } from '../../server/transfers/claim.ts'
import { claimWork } from '../../server/transfers/claim-work.ts'
import { decisionsBeyond, decisionsOf, pruneDecisions } from '../../server/transfers/decision-store.ts'
import { HOLD } from '../../server/transfers/health.ts'
import { hopKeeper, planHops } from '../../server/transfers/hops.ts'
import type { Look } from '../../server/transfers/link-tuning.ts'
import { optimizeLinks } from '../../server/transfers/optimize.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { recordProgress } from '../../server/transfers/outcome-store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { replanner } from '../../server/transfers/replan.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { lookAtTransfers, putMembers } from '../../server/transfers/source-set-store.ts'
import { sourceSetKeeper } from '../../server/transfers/source-sets.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { environment } from '../../shared/runtime/environment.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

/** Enough that a database which can choose does not choose to read a table; `PLAN_ROWS=1000000` is the full size. */
const ROWS = Number(environment.PLAN_ROWS ?? 100_000)
const DATASETS = 100
/** What grows with the installation: to read one of them whole is a fault, however fast it is today. */
const LARGE = [
  'dids',
  'contents',
  'replicas',
  'locks',
  'transfers',
  'attempts',
  'bundles',
  'grants',
  'ledger',
  'replans',
]
/** What storages hold of a hundred datasets: it is to read all of their files, which here are a good part of all. */
const OF_DATASETS = /AS unit_id, replicas.rse_id/
const FAILURE = {
  scope: 'SOURCE',
  phase: 'TRANSFER',
  code: 'CONNECT_FAILED',
  message: 'refused',
  retryable: true,
} as const

for (const { name, open } of databases) {
  describe(`at ${ROWS.toLocaleString('en')} rows ${name} reads no table whole`, function () {
    this.timeout(3 * ROWS + 100_000)
    let test: TestDatabase
    /** What the test itself asks is its own business. */
    let plain: World
    let world: World
    let session: number
    /** The statements that were seen, and those of them that read a large table whole. */
    const seen = new Set<string>()
    let scans: string[] = []

    before(async () => {
      test = await open()
      plain = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      await fill(plain)
      world = plain.on(explaining(test.db))
    })
    after(() => test.drop())
    beforeEach(() => {
      scans = []
    })
    afterEach(() => expect(scans).to.deep.equal([]))

    it('to expand a rule', async () => {
      await plain.dataset('small', 300, 'A')
      await plain.addRule('small', 'B|C', 2)
      await world.evaluate()
      await plain.grantAll()
    })

    it('to claim, and to hear of progress', async () => {
      session = await world.openSession()
      const claimed = await claimWork(world.context, { sessionId: session, fenceBase: FENCE_BASE }, 100)
      expect(claimed).to.have.length(100)
      const progress = claimed.map(({ id, fence }) => ({ transfer: id, fence, state: 'COPYING' as const, bytes: 1 }))
      await world.db.write(e => recordProgress(e, session, progress, world.clock.now()))
    })

    for (const result of ['done', 'failed', 'unknown', 'handed-back'] as const) {
      it(`to apply outcomes: ${result}`, () => report(result, 20))
    }

    it('to decide limits, and to show what is active', async () => {
      await plain.change('UPDATE links SET optimize = true, learnt_active = 1000')
      const looks: Look[] = []
      for (let round = 0; round < 14; round += 1) {
        await optimizeLinks(world.context, looks, world.clock.now())
        await world.clock.advance(5_000)
      }
      expect(await plain.number('SELECT count(*) AS n FROM link_decisions')).to.equal(1)
      await listActivities(world.db.read, {})
      const link = { sourceId: (await plain.rse('A')).id, destinationId: (await plain.rse('B')).id }
      expect(await decisionsOf(world.db.read, link, 10)).to.have.length(1)
      await pruneDecisions(world.db.read, 0, await decisionsBeyond(world.db.read))
    })

    it('to attach a file below rules', () => world.attach('small', 'late', 'A'))

    it('to plan what waits', async () => {
      await world.clock.advance(120_000)
      await world.run(transferReleaser)
    })

    it('to move what is queued to another source, and to try the one that is held', async () => {
      // A few files of each chunk are at C too.
      await plain.change(
        `INSERT INTO replicas (file_id, rse_id, directory_id, name, state, lock_count, updated_at)
         SELECT file_id, 3, directories.id, replicas.name, 'AVAILABLE', 0, 0 FROM replicas
           JOIN directories ON directories.rse_id = 3 WHERE replicas.rse_id = 1 AND replicas.name LIKE 'x%7'
            AND directories.id = (SELECT min(id) FROM directories WHERE rse_id = 3)`,
      )
      // Its failures above have it held.
      const now = world.clock.now()
      await plain.change('UPDATE link_health SET holds = 2, since = :since, failed_at = :now, held_until = :now', {
        since: now - HOLD.beforeMoving,
        now,
      })
      await world.run(replanner)
      const moved = await plain.number('SELECT count(*) AS n FROM transfers WHERE replan_id IS NOT NULL')
      expect(moved).to.be.above(ROWS / 50)
      const [failing] = await plain.rows<{ id: number }>('SELECT link_id AS id FROM link_health')
      const link = (await linksToServe(world.db.read, {}, now)).find(({ id }) => id === failing?.id)
      if (link === undefined) throw new Error('the link is not on trial')
      const claimant = { sessionId: session, fenceBase: FENCE_BASE }
      expect(await world.db.write(e => claimOnLink(e, link, claimant, 100, now))).to.have.length(1)
      await plain.change('DELETE FROM link_health')
      await plain.grantAll()
    })

    it('to end a session, and to settle what it had', async () => {
      await claimWork(world.context, { sessionId: session, fenceBase: FENCE_BASE }, 50)
      await world.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
      session = await world.openSession()
      await world.clock.advance(10_000)
      const next = { sessionId: session, fenceBase: FENCE_BASE }
      expect(await world.db.write(e => claimToSettle(e, next, 100, world.clock.now()))).to.have.length.above(40)
    })

    for (const result of ['absent', 'growing'] as const) {
      it(`to apply outcomes of looks: ${result}`, () => report(result, 20))
    }

    it('to choose, mint and expire grants', async () => {
      const now = world.clock.now()
      const { read } = world.db
      await unplannedBundles(read, { voIds: [world.voId], aside: [] }, 50)
      await grantsToMint(read, world.issuerId, now, 16)
      await grantsToMintAnew(read, world.issuerId, now, 16)
      await grantsToRenew(read, {}, now, 20)
      await world.db.write(e => expireGrants(e, now - 3_600_000, now))
    })

    it('to send files over another storage, and to let them go there', async () => {
      await plain.change("UPDATE rses SET multihop = true WHERE name = 'B'")
      await plain.change('UPDATE links SET distance = 0 WHERE source_rse_id = 1 AND destination_rse_id = 3')
      await plain.dataset('apart', 300, 'A')
      await plain.addRule('apart', 'C', 1)
      await plain.evaluate()
      const waiting = await plain.rows<{ id: number }>(
        `SELECT transfers.id FROM transfers JOIN replicas ON replicas.id = replica_id JOIN dids ON dids.id = file_id
          WHERE dids.name LIKE 'apart%' ORDER BY transfers.id`,
      )
      world.context.storages.forget()
      const ids = waiting.map(row => row.id)
      expect(await planHops(world.context, ids, world.clock.now())).to.equal(300)
      const [first] = ids
      await plain.change('UPDATE hops SET expires_at = 0, look_at = 0 WHERE transfer_id > :first', {
        first: first ?? 0,
      })
      await world.run(hopKeeper)
      expect(await plain.number('SELECT count(*) AS n FROM hops WHERE look_at IS NULL')).to.equal(299)
    })

    it('to let go of files and of a dataset', async () => {
      await plain.dataset('leaves', 300, 'A')
      await plain.container('crate', ['s:leaves'])
      const rule = await plain.addRule('crate', 'B', 1)
      await plain.evaluate()
      await world.detach('leaves', 'leaves.f0', 'leaves.f1')
      await world.detach('crate', 'leaves')
      await world.evaluate()
      expect(await plain.number('SELECT count(*) AS n FROM locks WHERE rule_id = :rule', { rule })).to.equal(0)
    })

    it('to send off what is queued from a storage that its rules name no more, and to plan it anew', async () => {
      await plain.change("INSERT INTO source_sets (vo_id, expression) VALUES (1, 'A')")
      await plain.change(
        `UPDATE transfers SET source_set_id = (SELECT max(id) FROM source_sets) WHERE state = 'QUEUED' AND id % 100 = 0`,
      )
      await plain.change("UPDATE rules SET source_expression = 'A' WHERE id = 1")
      if (!isSqlite(plain.db.read)) await plain.change('ANALYZE')
      await world.run(sourceSetKeeper)
      await plain.change('DELETE FROM source_set_members')
      const [set] = await plain.rows<{ id: number }>('SELECT id FROM source_sets')
      await world.db.write(e => putMembers(e, set?.id ?? 0, [3]))
      const changed = { id: set?.id ?? 0, look_cursor: 0 }
      expect(await world.db.write(e => lookAtTransfers(e, changed, 1_000, world.clock.now()))).to.equal(true)
      expect(
        await plain.number(`SELECT count(*) AS n FROM transfers WHERE source_set_id IS NOT NULL AND state = 'WAITING'`),
      ).to.be.above(ROWS / 500)
      await world.run(transferReleaser)
      await plain.addRule('small', 'C', 1)
      plain.sources = 'A'
      await plain.addRule('small', 'B', 1)
      await world.evaluate()
      const replicas = await plain.rows<{ id: number }>(
        'SELECT replica_id AS id FROM transfers WHERE source_set_id IS NOT NULL LIMIT 1000',
      )
      const ids = replicas.map(row => row.id)
      await world.db.write(e => alignSources(e, ids, world.clock.now()))
    })

    it('to repair and to remove a rule', async () => {
      await world.run(ruleRepairer)
      await world.db.write(e => startRemoval(e, 2, plain.clock.now()))
      await world.evaluate()
    })

    it('though many statements were looked at', () => expect(seen.size).to.be.above(60))

    async function report(result: ReportedOutcome['result'], count: number): Promise<void> {
      const held = await plain.rows<{ id: number; fence: number }>(
        'SELECT id, fence FROM transfers WHERE session_id = :session ORDER BY id LIMIT :count',
        { session, count },
      )
      expect(held).to.have.length(count)
      const numbers = { durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false, left: 'nothing' as const }
      const error = result === 'failed' ? { error: FAILURE } : {}
      const outcomes = held.map(({ id: transfer, fence }) => ({ transfer, fence, result, ...numbers, ...error }))
      const answers = await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
      expect(answers.every(({ answer }) => answer === 'applied')).to.equal(true)
    }

    /** The same database, each statement explained before it runs. */
    function explaining(db: Database): Database {
      const watched = (executor: Executor): Executor =>
        new Proxy(executor, {
          get(target, property) {
            if (property !== 'raw') return Reflect.get(target, property)
            return async (sql: string, bindings: Readonly<Record<string, Binding>> = {}) => {
              await explain(target, sql, bindings)
              return target.raw(sql, bindings)
            }
          },
        })
      return { ...db, read: watched(db.read), write: work => db.write(executor => work(watched(executor))) }
    }

    async function explain(
      executor: Executor,
      sql: string,
      bindings: Readonly<Record<string, Binding>>,
    ): Promise<void> {
      if (seen.has(sql) || OF_DATASETS.test(sql) || !/^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)/.test(sql)) return
      seen.add(sql)
      const found = isSqlite(executor)
        ? await scansOnSqlite(executor, sql, bindings)
        : await scansOnPostgres(executor, sql, bindings)
      scans.push(...found.map(scan => `${scan} in ${sql}`))
    }
  })
}

/** A partial index holds open work only: to go through it is what it is for. */
async function scansOnSqlite(executor: Executor, sql: string, bindings: Readonly<Record<string, Binding>>) {
  const steps = await query<{ detail: string }>(executor, `EXPLAIN QUERY PLAN ${sql}`, bindings)
  const partial = await query<{ name: string }>(
    executor,
    "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'",
  )
  const allowed = new Set(partial.map(index => index.name))
  return steps
    .map(step => step.detail)
    .filter(detail => {
      const [, table = '', index = ''] = /^SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?/.exec(detail) ?? []
      // What a foreign key would ask for is shown too: of a table that the statement does not name.
      return LARGE.includes(table) && new RegExp(`\\b${table}\\b`).test(sql) && !allowed.has(index)
    })
}

interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Index Name'?: string
  'Index Cond'?: string
  Plans?: PlanNode[]
}

async function scansOnPostgres(executor: Executor, sql: string, bindings: Readonly<Record<string, Binding>>) {
  const [row] = await query<{ 'QUERY PLAN': { Plan: PlanNode }[] }>(executor, `EXPLAIN (FORMAT JSON) ${sql}`, bindings)
  const nodes = (node: PlanNode): PlanNode[] => [node, ...(node.Plans ?? []).flatMap(nodes)]
  return (row?.['QUERY PLAN'] ?? [])
    .flatMap(({ Plan }) => nodes(Plan))
    .filter(node => node['Node Type'] === 'Seq Scan' && LARGE.includes(node['Relation Name'] ?? ''))
    .map(node => `Seq Scan on ${node['Relation Name']}`)
}

/** A hundred datasets that rule 1 wants at B: of each half is there, and half is queued. */
async function fill(world: World): Promise<void> {
  for (let i = 0; i < DATASETS; i += 1) await world.dataset(`large${i}`, 1, 'A')
  await world.container(
    'all',
    Array.from({ length: DATASETS }, (_, i) => `s:large${i}`),
  )
  await world.addRule('all', 'B', 1)
  await world.evaluate()
  await world.grantAll()
  const numbers = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)'
  const each = { rows: ROWS / DATASETS }
  for (let i = 0; i < DATASETS; i += 1) await fillDataset(world, `large${i}`, numbers, each.rows)
  if (!isSqlite(world.db.read)) await world.change('ANALYZE')
  for (const [sql, bindings] of [
    [
      `INSERT INTO locks (rule_id, replica_id, state)
       SELECT 1, id, CASE state WHEN 'AVAILABLE' THEN 'OK' ELSE 'REPLICATING' END FROM replicas
        WHERE name LIKE 'x%' AND rse_id = 2`,
      {},
    ],
    [
      `INSERT INTO transfers (replica_id, source_replica_id, bundle_id, link_id, source_rse_id, destination_rse_id, vo_id,
                              account_id, activity, priority, bytes, state, attempts, not_before, fence, bytes_done,
                              cancel_requested, created_at, updated_at)
       SELECT own.id, source.id, bundles.id, bundles.link_id, 1, 2, 1, 1, 'test', 3, 1,
              CASE own.state WHEN 'AVAILABLE' THEN 'DONE' ELSE 'QUEUED' END, 0, 0, 1, 0, false, 0, 0
         FROM replicas AS own JOIN replicas AS source ON source.file_id = own.file_id AND source.rse_id = 1
         JOIN bundles ON bundles.destination_directory_id = own.directory_id
        WHERE own.name LIKE 'x%' AND own.rse_id = 2`,
      {},
    ],
    [
      `INSERT INTO attempts (transfer_id, fence, session_id, outcome, started_at, ended_at, bytes)
       SELECT id, 1, 1, 'done', 0, 0, 1 FROM transfers WHERE state = 'DONE'`,
      {},
    ],
    [
      `INSERT INTO grants (issuer_id, client, vo_id, rse_id, audience, purpose, scopes, state, generation, exchanged,
                           expires_at, lifetime_ms, mints, exchanges, refreshes, lease_until, not_before, failures, wanted_at, created_at, refused_generation, refused_at)
       ${numbers} SELECT 1, 'server', 1, 1, 'a', 'read', 'storage.read:/' || i, 'EXPIRED', 1, false, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM n`,
      { rows: ROWS },
    ],
    [
      `INSERT INTO bundles (link_id, vo_id, source_directory_id, destination_directory_id, priority, activity, account_id,
                            has_work, ready, served_at, source_grant_id, destination_grant_id)
       ${numbers} SELECT 1, 1, bundles.source_directory_id, bundles.destination_directory_id, 3, 'other' || i, 1, false, false, 0,
              old.first + i, old.first + i FROM n, bundles, (SELECT min(id) AS first FROM grants WHERE state = 'EXPIRED') AS old`,
      each,
    ],
    [`INSERT INTO ledger (grant_id, at, step, outcome) SELECT id, 0, 'mint', 'ok' FROM grants`, {}],
  ] as const) {
    await world.change(sql, bindings)
  }
  if (!isSqlite(world.db.read)) await world.change('ANALYZE')
}

async function fillDataset(world: World, dataset: string, numbers: string, rows: number): Promise<void> {
  await world.change(
    `INSERT INTO dids (scope_id, name, type, bytes, files, adler32, is_open, account_id, created_at)
     ${numbers} SELECT 1, '${dataset}/' || i, 'FILE', 1, 1, '00000001', false, 1, 0 FROM n`,
    { rows },
  )
  const files = `scope_id = 1 AND name >= '${dataset}/' AND name < '${dataset}0'`
  await world.change(
    `INSERT INTO contents (parent_id, child_id)
     SELECT (SELECT id FROM dids WHERE scope_id = 1 AND name = '${dataset}'), id FROM dids WHERE ${files}`,
  )
  for (const [rse, state] of [
    [1, "'AVAILABLE'"],
    [2, "CASE WHEN id % 2 = 0 THEN 'AVAILABLE' ELSE 'COPYING' END"],
  ] as const) {
    await world.change(
      `INSERT INTO replicas (file_id, rse_id, directory_id, name, state, lock_count, updated_at)
       SELECT id, :rse, (SELECT id FROM directories WHERE rse_id = :rse AND path = '/data/s/${dataset}'), 'x' || id, ${state}, 1, 0
         FROM dids WHERE ${files}`,
      { rse },
    )
  }
}
