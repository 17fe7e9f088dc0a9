import { expect } from 'chai'
import { askCopy, placeDataset, someFiles, transfersOf, untilRule, wrongFiles } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'

for (const dialect of ['dcache', 'eos'] as const) {
  describe(`a storage with a tape behind it (${dialect})`, function () {
    this.timeout(120_000)
    let house: House

    before(async () => {
      const tape = { dialect, drives: 2, secondsPerFile: 0.05, archiveSeconds: 1 }
      house = await startHouse({ storages: { 'SITE-A': { tape } } })
      await house.addStorages()
      await house.client.updateRse({ params: { rse: 'SITE-A' }, body: { tape: true } })
      await house.startWorker()
    })
    after(() => house.stop())

    const tape = () => {
      const front = house.storages.get('SITE-A')?.tape
      if (front === undefined) throw new Error('no tape')
      return front
    }
    const pathOf = (dataset: string, name: string) => `/data/exp/exp/${dataset}/${name}`
    const localities = (dataset: string, count: number) =>
      Promise.all(someFiles(count).map(({ name }) => tape().locality(pathOf(dataset, name))))
    async function onTape(dataset: string, count: number) {
      const files = someFiles(count)
      await placeDataset(house, 'SITE-A', dataset, files)
      for (const { name } of files) {
        await until(
          () => tape().evict(pathOf(dataset, name)),
          evicted => evicted,
        )
      }
      expect(await localities(dataset, count)).to.deep.equal(Array(count).fill('TAPE'))
      return files
    }

    it('brings files back in bulk, has them copied, and lets go of them', async () => {
      const files = await onTape('run1', 20)
      const rule = await askCopy(house, 'run1', 'SITE-B')
      await untilRule(house, rule, 'OK', 60_000)
      expect(await wrongFiles(house, 'SITE-B', 'run1', files)).to.deep.equal([])
      const transfers = await transfersOf(house, rule)
      expect(transfers.map(({ attempts }) => attempts)).to.deep.equal(Array(20).fill(1))
      // One to stage, one to release, and what was done before.
      await until(
        async () => house.storages.get('SITE-A')?.requests.get('DELETE'),
        forgotten => forgotten === 1,
        90_000,
      )
      expect(house.storages.get('SITE-A')?.requests.get('POST')).to.equal(2)
      // dCache pins files until they are released; EOS has them leave the disk at once.
      if (dialect === 'dcache') {
        const evicted = await Promise.all(files.map(({ name }) => tape().evict(pathOf('run1', name))))
        expect(evicted).to.deep.equal(Array(20).fill(true))
      }
      expect(await localities('run1', 20)).to.deep.equal(Array(20).fill('TAPE'))
    })

    it('that has lost a file says so: its replica is BAD, and its rule stuck', async () => {
      const files = await onTape('run2', 2)
      tape().settings.lost = [pathOf('run2', 'f0')]
      const rule = await askCopy(house, 'run2', 'SITE-B')
      const stuck = await until(
        () => house.client.getRule({ params: { id: rule } }),
        ({ locks }) => locks.ok === 1 && locks.stuck === 1,
        60_000,
      )
      expect(stuck.problems?.map(({ code }) => code)).to.deep.equal(['FILE_LOST'])
      const { items } = await house.client.listReplicas({ query: { did: 'exp:run2', rse: 'SITE-A' } })
      expect(items.map(({ state }) => state)).to.deep.equal(['BAD', 'AVAILABLE'])
      expect(items[0]?.fault).to.match(/^FILE_LOST: /)
      expect(await wrongFiles(house, 'SITE-B', 'run2', files)).to.deep.equal(['f0'])
    })

    it('is told to stop when nobody wants the files any more', async () => {
      tape().settings.secondsPerFile = 3_600
      await onTape('run3', 3)
      const rule = await askCopy(house, 'run3', 'SITE-B')
      await until(
        () => house.client.listRuleTransfers({ params: { id: rule }, query: {} }),
        ({ items }) => items.length === 3 && items.every(({ state }) => state === 'STAGING'),
      )
      const before = house.storages.get('SITE-A')?.requests.get('DELETE') ?? 0
      await house.client.removeRule({ params: { id: rule } })
      await until(
        async () => house.storages.get('SITE-A')?.requests.get('DELETE') ?? 0,
        now => now === before + 1,
        90_000,
      )
      tape().settings.secondsPerFile = 0.05
    })

    it('has a copy on tape before the lock is OK, where the rule wants that', async () => {
      await house.client.updateRse({ params: { rse: 'SITE-A' }, body: { tape: true } })
      const files = someFiles(3)
      await placeDataset(house, 'SITE-B', 'run4', files)
      tape().settings.archiveSeconds = 8
      const body = { dids: ['exp:run4'], copies: 1, expression: 'SITE-A', archive: true }
      const { items } = await house.client.addRules({ body })
      const id = items[0]?.id ?? 0
      await until(
        () => house.client.listRuleTransfers({ params: { id }, query: {} }),
        ({ items: found }) => found.length === 3 && found.every(({ state }) => state === 'ARCHIVING'),
      )
      expect((await house.client.getRule({ params: { id } })).state).to.equal('REPLICATING')
      await untilRule(house, id, 'OK', 60_000)
      expect(await localities('run4', 3)).to.deep.equal(Array(3).fill('DISK_AND_TAPE'))
    })
  })
}
