import { expect } from 'chai'
import { claimImports, insertImport } from '../../server/imports/store.ts'
import { closeLink, updateRse } from '../../server/storages/store.ts'
import { claimOnLink, linksToServe } from '../../server/transfers/claim.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

for (const { name, open } of databases) {
  describe(`transfers whose way is closed, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let ids: { a: number; b: number; c: number }

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      ids = { a: (await world.rse('A')).id, b: (await world.rse('B')).id, c: (await world.rse('C')).id }
      await world.dataset('d', 5, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
    })
    afterEach(() => test.drop())

    const closings: [string, string, () => Promise<unknown>][] = [
      ['its link is removed', 'NO_SOURCE', () => test.db.write(e => closeLink(e, ids.a, ids.b))],
      [
        'its source may not be read',
        'NO_SOURCE',
        () => test.db.write(e => updateRse(e, ids.a, { availabilityRead: false })),
      ],
      [
        'its destination may not be written to',
        'DESTINATION_CLOSED',
        () => test.db.write(e => updateRse(e, ids.b, { availabilityWrite: false })),
      ],
    ]
    const waiting = (): Promise<unknown[]> =>
      world.rows('SELECT state, reason, count(*) AS n FROM transfers GROUP BY state, reason')

    for (const [when, reason, close] of closings) {
      it(`${when}: none is claimed, though a worker looked before`, async () => {
        const links = await linksToServe(test.db.read, {}, world.clock.now())
        expect(links).to.have.length(1)
        await close()
        const claimant = { sessionId: await world.openSession(), fenceBase: FENCE_BASE }
        for (const link of links) {
          expect(await test.db.write(e => claimOnLink(e, link, claimant, 5, world.clock.now()))).to.deep.equal([])
        }
        expect(await linksToServe(test.db.read, {}, world.clock.now())).to.deep.equal([])
      })

      it(`${when}: they leave the queue, and say why`, async () => {
        await close()
        await world.run(transferReleaser)
        expect(await waiting()).to.deep.equal([{ state: 'WAITING', reason, n: 5 }])
        const hints =
          'SELECT (SELECT count(*) FROM bundles WHERE has_work) + (SELECT count(*) FROM links WHERE has_work) AS n'
        expect(await world.number(hints)).to.equal(0)
      })
    }

    it('another source is taken at once', async () => {
      await world.dataset('d', 5, 'C')
      await test.db.write(e => closeLink(e, ids.a, ids.b))
      await world.run(transferReleaser)
      expect(await world.rows('SELECT state, source_rse_id, count(*) AS n FROM transfers GROUP BY 1, 2')).to.deep.equal(
        [{ state: 'QUEUED', source_rse_id: ids.c, n: 5 }],
      )
      await world.grantAll()
      expect(await world.claim(await world.openSession(), 10)).to.have.length(5)
    })

    it('imports of a storage that may not be read wait', async () => {
      const claimant = { sessionId: await world.openSession() }
      const claim = (): Promise<unknown[]> =>
        test.db.write(executor => claimImports(executor, claimant, 2, world.clock.now()))
      const directoryId = await world.number('SELECT min(id) AS n FROM directories')
      const place = { voId: world.voId, rseId: ids.a, directoryId, datasetId: await world.didId('d') }
      const grantId = await world.number('SELECT min(id) AS n FROM grants')
      const job = { ...place, accountId: world.accountId, grantId, checksum: 'storage' } as const
      await test.db.write(executor => insertImport(executor, job, world.clock.now()))
      await test.db.write(e => updateRse(e, ids.a, { availabilityRead: false }))
      expect(await claim()).to.deep.equal([])
      await test.db.write(e => updateRse(e, ids.a, { availabilityRead: true }))
      expect(await claim()).to.have.length(1)
    })

    it('they come back when the way is open again', async () => {
      await test.db.write(e => updateRse(e, ids.b, { availabilityWrite: false }))
      await world.run(transferReleaser)
      await test.db.write(e => updateRse(e, ids.b, { availabilityWrite: true }))
      await world.clock.advance(60_000)
      await world.run(transferReleaser)
      expect(await waiting()).to.deep.equal([{ state: 'QUEUED', reason: null, n: 5 }])
      expect(await world.claim(await world.openSession(), 10)).to.have.length(5)
    })
  })
}
