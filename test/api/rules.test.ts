import { stat } from 'node:fs/promises'
import { expect } from 'chai'
import { query } from '../../server/database/sql.ts'
import {
  askCopy,
  didOf,
  onDisk,
  placeDataset,
  someFiles,
  transfersOf,
  untilRule,
  wrongFiles,
} from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { LeapingClock } from '../house/leaping-clock.ts'
import { until } from '../house/until.ts'

describe('rules', () => {
  const clock = new LeapingClock()
  let house: House

  before(async () => {
    house = await startHouse({ clock, server: { sessionLeaseSeconds: 2 }, worker: { settleSeconds: 0.3 } })
    await house.addStorages()
  })
  after(() => house.stop())

  const replicasAt = async (dataset: string, rse: string) =>
    (await house.client.listReplicas({ query: { did: `exp:${dataset}`, rse, limit: 1000 } })).items
  const isGone = (id: number) =>
    until(
      () =>
        house.client.getRule({ params: { id } }).then(
          () => false,
          (error: unknown) => error instanceof Error && 'code' in error && error.code === 'RULE_UNKNOWN',
        ),
      gone => gone,
    )
  const statesOf = async (rule: number): Promise<string[]> => (await transfersOf(house, rule)).map(({ state }) => state)

  /** Tombstones are not for people: the database tells. */
  async function tombstones(dataset: string): Promise<number> {
    const db = house.database.open()
    const rows = await query(
      db.read,
      `SELECT 1 FROM replicas JOIN dids ON dids.id = replicas.file_id WHERE tombstone_at IS NOT NULL AND dids.name LIKE :name`,
      { name: `${dataset}/%` },
    )
    await db.close()
    return rows.length
  }

  describe('without a worker', () => {
    it('a rule that is removed takes its locks, and what waits is cancelled', async () => {
      await placeDataset(house, 'SITE-A', 'removed', someFiles(3))
      const rule = await askCopy(house, 'removed', 'SITE-B')
      await until(
        () => statesOf(rule),
        states => states.join() === 'QUEUED,QUEUED,QUEUED',
      )
      const shown = await house.client.getRule({ params: { id: rule } })
      expect(shown).to.include({ did: 'exp:removed', account: 'alice', state: 'REPLICATING', expanded: true })
      expect(shown.locks).to.deep.equal({ ok: 0, replicating: 3, stuck: 0 })
      const transfers = (await transfersOf(house, rule)).map(({ id }) => id)
      await house.client.removeRule({ params: { id: rule } })
      await isGone(rule)
      await until(
        () => Promise.all(transfers.map(id => house.client.getTransfer({ params: { id } }))),
        found => found.every(({ state }) => state === 'CANCELLED'),
      )
      await until(
        () => tombstones('removed'),
        count => count === 3,
      )
      expect((await replicasAt('removed', 'SITE-B')).map(({ locks }) => locks)).to.deep.equal([0, 0, 0])
    })

    it('a transfer that another rule wants is not cancelled', async () => {
      await placeDataset(house, 'SITE-A', 'wanted', someFiles(2))
      const first = await askCopy(house, 'wanted', 'SITE-B')
      const second = await askCopy(house, 'wanted', 'SITE-B&*')
      await until(
        () => statesOf(second),
        states => states.length === 2,
      )
      expect((await transfersOf(house, first)).map(({ id }) => id)).to.deep.equal(
        (await transfersOf(house, second)).map(({ id }) => id),
      )
      await house.client.removeRule({ params: { id: first } })
      await isGone(first)
      await until(
        () => replicasAt('wanted', 'SITE-B'),
        replicas => replicas.map(({ locks }) => locks).join() === '1,1',
      )
      expect(await statesOf(second)).to.deep.equal(['QUEUED', 'QUEUED'])
      expect(await tombstones('wanted')).to.equal(0)
    })

    it('a rule over what is there already is OK at once, and costs no transfer', async () => {
      await placeDataset(house, 'SITE-A', 'there', someFiles(5))
      const rule = await askCopy(house, 'there', 'SITE-A|SITE-B')
      expect((await untilRule(house, rule, 'OK')).locks).to.deep.equal({ ok: 5, replicating: 0, stuck: 0 })
      expect(await transfersOf(house, rule)).to.deep.equal([])
    })

    it('a rule ends with its lifetime', async () => {
      const keep = (keepRegistered: boolean) =>
        house.client.updateRse({ params: { rse: 'SITE-A' }, body: { keepRegistered } })
      await keep(false)
      await placeDataset(house, 'SITE-A', 'short', someFiles(2))
      await keep(true)
      const body = { dids: ['exp:short'], copies: 1, expression: 'SITE-A', lifetime: 600 }
      const id = (await house.client.addRules({ body })).items[0]?.id ?? 0
      const rule = await untilRule(house, id, 'OK')
      expect(rule.expiresAt).to.be.within(clock.now() + 500_000, clock.now() + 600_000)
      clock.leap(600_000)
      await isGone(id)
      await until(
        () => tombstones('short'),
        count => count === 2,
      )
      expect((await replicasAt('short', 'SITE-A')).map(({ state, locks }) => [state, locks])).to.deep.equal(
        Array(2).fill(['AVAILABLE', 0]),
      )
    })

    it('files that would share a path are named, and the others go on', async () => {
      const files = ['exp:clash/a', 'exp:a', 'exp:b'].map((did, i) => ({
        did,
        bytes: 1,
        adler32: '00620062',
        path: `/data/exp/elsewhere/${i}`,
      }))
      await house.client.registerReplicas({ body: { rse: 'SITE-A', dataset: 'exp:clash', files } })
      const rule = await untilRule(house, await askCopy(house, 'clash', 'SITE-B'), 'STUCK')
      expect(rule.problems).to.deep.equal([
        { did: 'exp:a', rse: 'SITE-B', code: 'PATH_TAKEN', message: 'its path at SITE-B belongs to another file' },
      ])
      expect(rule.locks.replicating).to.equal(2)
    })
  })

  describe('with a worker', () => {
    before(() => house.startWorker())

    it('two rules for the same copies move the bytes once', async () => {
      const files = someFiles(20)
      await placeDataset(house, 'SITE-A', 'shared', files)
      const copies = house.storages.get('SITE-C')?.requests
      const before = copies?.get('COPY') ?? 0
      const rules = [await askCopy(house, 'shared', 'SITE-C'), await askCopy(house, 'shared', '*\\SITE-A\\SITE-B')]
      for (const rule of rules) await untilRule(house, rule, 'OK')
      expect((copies?.get('COPY') ?? 0) - before).to.equal(20)
      expect(new Set((await replicasAt('shared', 'SITE-C')).map(({ locks }) => locks))).to.deep.equal(new Set([2]))
      const { items } = await house.client.listRulePlaces({ params: { id: rules[0] ?? 0 } })
      const bytes = files.reduce((sum, { content }) => sum + content.length, 0)
      expect(items).to.deep.equal([{ rse: 'SITE-C', bytes, locks: { ok: 20, replicating: 0, stuck: 0 } }])
    })

    it('what is attached later is copied too', async () => {
      const { client } = house
      await placeDataset(house, 'SITE-A', 'grows', someFiles(2))
      await client.addDids({ body: { dids: [{ did: 'exp:box', type: 'CONTAINER' }] } })
      await client.attach({ params: { scope: 'exp', name: 'box' }, body: { dids: ['exp:grows'] } })
      const rule = await askCopy(house, 'box', 'SITE-B')
      await until(
        () => client.getRule({ params: { id: rule } }),
        ({ state, locks }) => state === 'OK' && locks.ok === 2,
      )
      await placeDataset(house, 'SITE-A', 'grows', someFiles(5))
      await until(
        () => client.getRule({ params: { id: rule } }),
        ({ state, locks }) => state === 'OK' && locks.ok === 5,
      )
      await placeDataset(house, 'SITE-A', 'second', someFiles(3))
      await client.attach({ params: { scope: 'exp', name: 'box' }, body: { dids: ['exp:second'] } })
      await until(
        () => client.getRule({ params: { id: rule } }),
        ({ state, locks }) => state === 'OK' && locks.ok === 8,
      )
      expect(await wrongFiles(house, 'SITE-B', 'grows', someFiles(5))).to.deep.equal([])
      expect(await wrongFiles(house, 'SITE-B', 'second', someFiles(3))).to.deep.equal([])
    })

    it('what is detached is let go of, and deleted when nobody else asks for it', async () => {
      const { client } = house
      await placeDataset(house, 'SITE-A', 'shrinks', someFiles(4))
      await client.addDids({ body: { dids: [{ did: 'exp:crate', type: 'CONTAINER' }] } })
      await client.attach({ params: { scope: 'exp', name: 'crate' }, body: { dids: ['exp:shrinks'] } })
      const rules = [await askCopy(house, 'crate', 'SITE-B'), await askCopy(house, 'shrinks', 'SITE-B')]
      for (const rule of rules) await untilRule(house, rule, 'OK')
      const held = async (files: readonly number[]): Promise<void> => {
        for (const [i, ok] of files.entries()) {
          await until(
            () => client.getRule({ params: { id: rules[i] ?? 0 } }),
            ({ state, locks }) => state === 'OK' && locks.ok === ok,
          )
        }
      }
      const files = (await client.listContents({ params: { scope: 'exp', name: 'shrinks' } })).items
      const params = { scope: 'exp', name: 'shrinks' }
      const body = { dids: files.slice(0, 1).map(({ did }) => did) }
      expect(await client.detach({ params, body })).to.deep.equal({ detached: 1 })
      expect(await client.detach({ params, body })).to.deep.equal({ detached: 0 })
      await held([3, 3])
      expect(await client.getDid({ params: { scope: 'exp', name: 'crate' } })).to.include({ files: 3 })
      const replicas = await client.listReplicas({ query: { did: body.dids[0] ?? '', rse: 'SITE-B' } })
      expect(replicas.items.map(({ locks }) => locks)).to.deep.equal([0])
      const out = { params: { scope: 'exp', name: 'crate' }, body: { dids: ['exp:shrinks'] } }
      expect(await client.detach(out)).to.deep.equal({ detached: 1 })
      await held([0, 3])
      expect(new Set((await replicasAt('shrinks', 'SITE-B')).map(({ locks }) => locks))).to.deep.equal(new Set([1]))
      await client.setOpen({ params, body: { open: false } })
      const [second] = files.slice(1).map(({ did }) => did)
      const refused = await client.detach({ params, body: { dids: [second ?? ''] } }).catch(error => error)
      expect(refused).to.include({ code: 'DID_CLOSED' })
      await client.setOpen({ params, body: { open: true } })
      expect(await client.detach({ params, body: { dids: [second ?? ''] } })).to.deep.equal({ detached: 1 })
      await held([0, 2])
    })

    it('two copies go to two storages', async () => {
      await placeDataset(house, 'SITE-A', 'twice', someFiles(4))
      const body = { dids: ['exp:twice'], copies: 2, expression: '*\\SITE-A' }
      const id = (await house.client.addRules({ body })).items[0]?.id ?? 0
      expect((await untilRule(house, id, 'OK')).locks.ok).to.equal(8)
      for (const rse of ['SITE-B', 'SITE-C']) {
        expect(await wrongFiles(house, rse, 'twice', someFiles(4))).to.deep.equal([])
      }
    })

    it('a copy under way that nobody wants any more is stopped, and leaves nothing', async () => {
      const source = house.storages.get('SITE-A')
      if (source === undefined) throw new Error('no SITE-A')
      source.behaviour.bytesPerSecond = 1_000
      await placeDataset(house, 'SITE-A', 'slow', someFiles(1, 60_000))
      const rule = await askCopy(house, 'slow', 'SITE-B')
      const [transfer] = await until(
        () => transfersOf(house, rule),
        ([found]) => found?.state === 'COPYING' || found?.state === 'CLAIMED',
      )
      await house.client.removeRule({ params: { id: rule } })
      const ended = await until(
        () => house.client.getTransfer({ params: { id: transfer?.id ?? 0 } }),
        ({ state }) => state === 'CANCELLED',
      )
      expect(ended.attemptList.map(({ outcome, error }) => [outcome, error?.code])).to.deep.equal([
        ['failed', 'CANCELLED'],
      ])
      expect(await stat(onDisk(house, 'SITE-B', 'slow', 'f0')).catch(() => 'absent')).to.equal('absent')
      const [replica] = await replicasAt('slow', 'SITE-B')
      expect(replica).to.include({ did: didOf('slow', 'f0'), state: 'UNAVAILABLE', locks: 0 })
      source.behaviour.bytesPerSecond = undefined
    })
  })
})
