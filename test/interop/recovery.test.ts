import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { runCommand } from '../house/command.ts'
import { until } from '../house/until.ts'
import { requireComponents } from './components.ts'
import { DATASETS, planFiles, readTree, type StoredFile } from './file-set.ts'
import { type RuleStage, startRuleStage } from './rule-stage.ts'

describe('replicas that go wrong behind real XRootD servers', function () {
  this.timeout(120_000)
  let stage: RuleStage
  let placed: Map<string, StoredFile>
  let copies: string
  const dataset = DATASETS[0] ?? ''
  const files = planFiles(12 * DATASETS.length).filter(file => file.dataset === dataset)
  const [first, second, third] = files

  before(async function () {
    requireComponents(this, ['xrootd'])
    stage = await startRuleStage()
    const source = await stage.addRse('XRD-A', stage.near)
    copies = await stage.addRse('XRD-B', stage.far)
    await stage.addRse('XRD-C', stage.near)
    await stage.link('XRD-A', 'XRD-B')
    await stage.link('XRD-B', 'XRD-C')
    await stage.place('XRD-A', source, files)
    placed = await readTree(source)
    await stage.replicate(dataset, 'XRD-B', 60_000)
    expect(Object.fromEntries(await readTree(copies))).to.deep.equal(Object.fromEntries(placed))
  })
  after(() => stage?.stop())

  const rule = () => stage.house.client.getRule({ params: { id: 1 } })
  const replicaAt = async (did: string, rse: string) =>
    (await stage.house.client.listReplicas({ query: { did, rse } })).items[0]
  const onDisk = async (did: string): Promise<string> => {
    const url = (await replicaAt(did, 'XRD-B'))?.url ?? ''
    return join(copies, new URL(url).pathname.split('/').slice(3).join('/'))
  }
  /** Other bytes of the same number. */
  async function corrupt(did: string, bytes: number): Promise<void> {
    await writeFile(await onDisk(did), Buffer.alloc(bytes, 'X'))
    expect(Object.fromEntries(await readTree(copies))).to.not.deep.equal(Object.fromEntries(placed))
  }
  async function untilRecovered(): Promise<void> {
    await until(rule, ({ state }) => state === 'OK', 60_000)
    expect(Object.fromEntries(await readTree(copies))).to.deep.equal(Object.fromEntries(placed))
    expect((await stage.house.client.listFaults({ query: {} })).items).to.deep.equal([])
  }
  const bytesOf = async (did: string): Promise<number> => (await replicaAt(did, 'XRD-B'))?.bytes ?? 0

  it('are deleted and copied anew when somebody declares them BAD', async () => {
    const did = first?.did ?? ''
    await corrupt(did, await bytesOf(did))
    const told = await runCommand(stage.house, `replica declare-bad ${did} --rse XRD-B --reason disk-7`)
    expect([told.status, told.out]).to.satisfy(
      ([status, out]: [number, string]) => status === 0 && out.includes('DECLARED') && out.includes('BAD'),
      told.err,
    )
    await untilRecovered()
  })

  it('are copied anew when a worker that is to look finds nothing there', async () => {
    const did = second?.did ?? ''
    await rm(await onDisk(did))
    const told = await runCommand(stage.house, `replica declare-good ${did} --rse XRD-B`)
    expect([told.status, told.err]).to.deep.equal([0, ''])
    await until(
      () => stage.house.client.listRuleTransfers({ params: { id: 1 }, query: { limit: 1000 } }),
      ({ items }) => items.filter(item => item.did === did).length === 2,
      30_000,
    )
    await untilRecovered()
  })

  it('are found by the copy that reads them, are recovered from elsewhere, and then are a good source', async () => {
    const did = third?.did ?? ''
    await corrupt(did, await bytesOf(did))
    await stage.house.client.updateRse({ params: { rse: 'XRD-B' }, body: { checksumPolicy: 'both' } })
    const { items } = await stage.house.client.addRules({ body: { dids: [did], copies: 1, expression: 'XRD-C' } })
    const id = items[0]?.id ?? 0
    await until(
      () => replicaAt(did, 'XRD-B'),
      found => found !== undefined && found.state !== 'AVAILABLE',
      30_000,
    )
    await untilRecovered()
    await stage.house.client.repairRule({ params: { id } }).catch(() => undefined)
    await until(
      () => stage.house.client.getRule({ params: { id } }),
      ({ state }) => state === 'OK',
      60_000,
    )
  })
})
