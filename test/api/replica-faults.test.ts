import { rm, writeFile } from 'node:fs/promises'
import { expect } from 'chai'
import { runCommand } from '../house/command.ts'
import { askCopy, didOf, onDisk, placeDataset, someFiles, untilRule, wrongFiles } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { until } from '../house/until.ts'

describe('what is said of replicas', () => {
  let house: House
  let raw: RawCalls

  before(async () => {
    house = await startHouse({ server: { deletion: { graceSeconds: 0 } } })
    raw = await RawCalls.create(house)
    await house.addStorages()
    await house.startWorker()
  })
  after(() => house.stop())

  const replica = async (dataset: string, rse: string, name = 'f0') =>
    (await house.client.listReplicas({ query: { did: didOf(dataset, name), rse } })).items[0]
  const files = someFiles(3)
  async function copied(dataset: string): Promise<number> {
    await placeDataset(house, 'SITE-A', dataset, files)
    const rule = await askCopy(house, dataset, 'SITE-B')
    await untilRule(house, rule, 'OK')
    return rule
  }

  it('is done once for one Idempotency-Key, whatever has come of it since', async () => {
    const rule = await copied('once')
    await writeFile(onDisk(house, 'SITE-B', 'once', 'f0'), 'broken')
    const body = { rse: 'SITE-B', as: 'BAD' as const, reason: 'disk 7', files: [{ did: didOf('once', 'f0') }] }
    const declared = { did: didOf('once', 'f0'), outcome: 'DECLARED', state: 'BAD' }
    expect(await house.client.declareReplicas({ body, idempotencyKey: 'k1' })).to.deep.equal({ results: [declared] })
    await until(
      () => wrongFiles(house, 'SITE-B', 'once', files),
      wrong => wrong.length === 0,
      30_000,
    )
    await untilRule(house, rule, 'OK')
    expect(await house.client.declareReplicas({ body, idempotencyKey: 'k1' })).to.deep.equal({ results: [declared] })
    expect((await replica('once', 'SITE-B'))?.state).to.equal('AVAILABLE')
  })

  it('is listed with who said it, why and when, as long as it holds', async () => {
    await placeDataset(house, 'SITE-A', 'only', files)
    const rule = await askCopy(house, 'only', 'SITE-A')
    await untilRule(house, rule, 'OK')
    const path = new URL((await replica('only', 'SITE-A'))?.url ?? '').pathname
    const told = await runCommand(house, `replica declare-bad ${path} --rse SITE-A --reason disk-7`)
    expect([told.status, told.err]).to.deep.equal([0, ''])
    const { items } = await house.client.listFaults({ query: { rse: 'SITE-A' } })
    expect(items).to.have.length(1)
    expect(items[0]).to.include({ did: didOf('only', 'f0'), rse: 'SITE-A', state: 'BAD', locks: 1 })
    expect(items[0]).to.include({ code: 'DECLARED_BAD', message: 'disk-7', by: 'alice' })
    const listed = await house.client.listReplicas({ query: { did: 'exp:only', state: 'BAD' } })
    expect(listed.items[0]).to.include({ fault: 'DECLARED_BAD: disk-7', faultBy: 'alice', kept: true })
    const stuck = await untilRule(house, rule, 'STUCK')
    expect(stuck.problems?.[0]?.message).to.equal('disk-7; no storage has a good copy of the file')
    const good = await runCommand(house, `replica declare-good ${didOf('only', 'f0')} --rse SITE-A`)
    expect(good.out).to.contain('TO_BE_LOOKED_AT')
    await untilRule(house, rule, 'OK')
    expect((await house.client.listFaults({ query: {} })).items).to.deep.equal([])
  })

  it('is not believed where the file is another', async () => {
    await placeDataset(house, 'SITE-A', 'other', files)
    await writeFile(onDisk(house, 'SITE-A', 'other', 'f0'), Buffer.alloc(100, 'X'))
    await house.client.declareReplicas({
      body: { rse: 'SITE-A', as: 'GOOD', files: [{ did: didOf('other', 'f0') }] },
    })
    const found = await until(
      () => replica('other', 'SITE-A'),
      item => item?.state === 'BAD',
      20_000,
    )
    expect(found?.fault).to.match(/^SOURCE_CORRUPT: the source has adler32/)
    expect(found?.stays, 'it is all that is left').to.match(/^ONLY_BAD/)
  })

  it('is found by a worker that looks where a source was said to lack the file', async () => {
    await placeDataset(house, 'SITE-A', 'missing', files)
    await rm(onDisk(house, 'SITE-A', 'missing', 'f0'))
    await untilRule(house, await askCopy(house, 'missing', 'SITE-B'), 'STUCK')
    const found = await replica('missing', 'SITE-A')
    expect([found?.state, found?.fault], 'not at once').to.satisfy(
      ([state, fault]: [string, string]) => state === 'AVAILABLE' && fault.startsWith('SOURCE_MISSING'),
    )
    await house.client.declareReplicas({
      body: { rse: 'SITE-A', as: 'GOOD', files: [{ did: didOf('missing', 'f0') }] },
    })
    const gone = await until(
      () => replica('missing', 'SITE-A'),
      item => item?.state !== 'AVAILABLE',
      20_000,
    )
    expect(gone?.fault).to.match(/^SOURCE_MISSING: HEAD answered 404/)
    expect(gone?.stays, 'where it was is not forgotten').to.match(/^ONLY_LOST/)
  })

  it('lets go of what was registered, which no rule takes away', async () => {
    await placeDataset(house, 'SITE-A', 'kept', files)
    const rule = await askCopy(house, 'kept', 'SITE-A')
    await untilRule(house, rule, 'OK')
    await house.client.removeRule({ params: { id: rule } })
    expect((await runCommand(house, 'replica keep exp:kept --rse SITE-A')).out).to.contain('0 replicas')
    const told = await runCommand(house, 'replica release exp:kept --rse SITE-A')
    expect(told.out).to.equal('3 replicas at SITE-A are let go of\n')
    await until(
      () => house.client.listReplicas({ query: { did: 'exp:kept' } }),
      ({ items }) => items.length === 0,
      20_000,
    )
  })

  it('is refused where it cannot be meant', async () => {
    const body = (more: object) => ({ body: { rse: 'SITE-A', as: 'BAD', files: [{ did: 'exp:f' }], ...more } })
    const at = '/v1/replicas/declarations'
    await raw.refusal([404, 'RSE_UNKNOWN', 'rse'], 'POST', at, body({ rse: 'NONE' }))
    await raw.refusal([400, 'INVALID', 'files'], 'POST', at, body({ files: [] }))
    await raw.refusal([400, 'INVALID', 'files'], 'POST', at, body({ files: Array(5001).fill({ did: 'exp:f' }) }))
    await raw.refusal([400, 'INVALID', 'as'], 'POST', at, body({ as: 'UGLY' }))
    await raw.refusal([404, 'DID_UNKNOWN', 'did'], 'PATCH', '/v1/replicas', {
      body: { rse: 'SITE-A', did: 'exp:no', kept: true },
    })
    const unknown = await house.client.declareReplicas({
      body: { rse: 'SITE-A', as: 'BAD', files: [{ did: 'exp:f' }] },
    })
    expect(unknown.results).to.deep.equal([{ did: 'exp:f', outcome: 'UNKNOWN' }])
    const told = await runCommand(house, 'replica declare-lost exp:f --rse SITE-A')
    expect([told.status, told.err]).to.satisfy(
      ([status, err]: [number, string]) => status === 1 && err.includes('1 of them are as they were'),
    )
    expect((await runCommand(house, 'replica declare-lost --rse SITE-A')).status).to.equal(2)
  })
})
