import { expect } from 'chai'
import { createServerMetrics } from '../../server/metrics.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

for (const { name, open } of databases) {
  describe(`the figures of the whole database on ${name}`, () => {
    let test: TestDatabase
    beforeEach(async () => {
      test = await open()
    })
    afterEach(() => test.drop())

    /** Four transfers from A to B, of which three may run, and two that have no source. */
    async function busy(): Promise<World> {
      const world = await World.make(test.db, { rses: ['A', 'B'], linkLimit: 3 })
      await world.dataset('d', 4, 'A')
      await world.dataset('lost', 2, 'A')
      await world.addRule('d', 'B', 1)
      await world.addRule('lost', 'B', 1)
      await world.change(`UPDATE replicas SET state = 'BAD' WHERE file_id IN (SELECT child_id FROM contents
        WHERE parent_id = (SELECT id FROM dids WHERE name = 'lost'))`)
      await world.evaluate()
      await world.grantAll()
      const gone = await world.openSession()
      await world.claim(gone, 1)
      await test.db.write(e => endSession(e, gone, 0, world.clock.now()))
      await world.claim(await world.openSession(), 10)
      return world
    }
    const figures = async (world: World, metrics = createServerMetrics(test.db, world.clock)): Promise<string[]> =>
      (await metrics.registry.metrics()).split('\n').filter(line => line.startsWith('waybill_fleet_'))

    it('are counted by link, storage and state', async () => {
      expect(await figures(await busy())).to.have.members([
        'waybill_fleet_transfers{source="A",destination="B",state="QUEUED"} 1',
        'waybill_fleet_transfers{source="A",destination="B",state="CLAIMED"} 2',
        'waybill_fleet_transfers{source="A",destination="B",state="SETTLING"} 1',
        'waybill_fleet_transfers{source="",destination="B",state="WAITING"} 2',
        'waybill_fleet_link_limit{source="A",destination="B"} 3',
        'waybill_fleet_link_limit{source="B",destination="A"} 3',
        'waybill_fleet_storage_active{rse="A",direction="in"} 0',
        'waybill_fleet_storage_active{rse="A",direction="out"} 3',
        'waybill_fleet_storage_active{rse="B",direction="in"} 3',
        'waybill_fleet_storage_active{rse="B",direction="out"} 0',
        ...['A', 'B'].flatMap(rse =>
          ['in', 'out'].map(direction => `waybill_fleet_storage_limit{rse="${rse}",direction="${direction}"} 1000`),
        ),
        'waybill_fleet_rules{state="REPLICATING"} 2',
        'waybill_fleet_locks{state="OK"} 0',
        'waybill_fleet_locks{state="REPLICATING"} 6',
        'waybill_fleet_locks{state="STUCK"} 0',
        'waybill_fleet_grants{state="LIVE"} 2',
        'waybill_fleet_bundles{ready="true"} 1',
        'waybill_fleet_bundles{ready="false"} 0',
        'waybill_fleet_sessions 1',
        'waybill_fleet_drained_workers 0',
        'waybill_fleet_read_failures_total 0',
      ])
    })

    it('tell which storages take nothing of a VO, or little', async () => {
      const world = await busy()
      await world.change(
        `INSERT INTO destination_health (vo_id, rse_id, since, failed_at, gave_at, failures, successes, confirmed, session_id, holds,
           held_until, code, message)
         SELECT vos.id, rses.id, 0, 0, 0, 1, 0, false, 1, 1, CASE rses.name WHEN 'B' THEN 1 ELSE 0 END, 'DESTINATION_FULL', '' FROM vos CROSS JOIN rses`,
      )
      expect((await figures(world)).filter(line => line.includes('destination_held'))).to.deep.equal([
        'waybill_fleet_destination_held{vo="vo",rse="B"} 1',
      ])
    })

    it('tell how many replicas are BAD, and of imports', async () => {
      const world = await busy()
      const replica = await world.number("SELECT min(id) AS n FROM replicas WHERE state = 'BAD'")
      await world.change(
        `INSERT INTO replica_faults (replica_id, at, code, message, over_at) VALUES (${replica}, 0, 'BAD', '', NULL), (${replica}, 0, 'BAD', '', 1)`,
      )
      const told = (await figures(world)).filter(line => line.includes('bad_replicas'))
      expect(told).to.deep.equal(['waybill_fleet_bad_replicas{rse="A"} 1'])
    })

    it('are read once for scrapes that follow each other closely', async () => {
      const world = await busy()
      const metrics = createServerMetrics(test.db, world.clock)
      const before = await figures(world, metrics)
      await world.openSession()
      expect(await figures(world, metrics)).to.deep.equal(before)
      await world.clock.advance(5_001)
      expect(await figures(world, metrics)).to.include('waybill_fleet_sessions 2')
    })

    it('are absent while the database cannot be read, and those of the process are still there', async () => {
      const world = await busy()
      const broken = { ...test.db, read: Object.assign(() => {}, { raw: () => Promise.reject(new Error('gone')) }) }
      const metrics = createServerMetrics(broken as never, world.clock)
      metrics.observeRequest('status', 200, 0.1)
      await figures(world, metrics)
      expect(await figures(world, metrics)).to.deep.equal(['waybill_fleet_read_failures_total 1'])
      expect(await metrics.registry.metrics()).to.contain('waybill_requests_total{route="status",status="200"} 1')
    })
  })
}
