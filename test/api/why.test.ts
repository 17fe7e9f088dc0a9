import { expect } from 'chai'
import { runCommand } from '../house/command.ts'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'
import { uploadFiles } from '../house/upload.ts'

describe('why transfers and rules wait, as people ask', () => {
  let house: House
  let rule: number
  let transfer: number

  before(async () => {
    house = await startHouse({ vos: ['exp', 'other'] })
    await house.addStorages()
    await house.client.addAccount({ body: { name: 'stranger', vo: 'other' } })
    const subject = house.sandbox.clients.server.id
    const identity = { issuer: house.sandbox.issuer, subject, account: 'stranger', vo: 'other' }
    await house.client.addIdentity({ body: identity })
    const files = [0, 1, 2].map(i => ({ did: `exp:run1/f${i}`, content: Buffer.from(`content ${i}`) }))
    await uploadFiles(house, 'SITE-A', 'exp:run1', files)
    rule = await addRule('exp:run1')
    const { items } = await until(
      () => house.client.listRuleTransfers({ params: { id: rule } }),
      page => page.items.length === 3,
    )
    transfer = items[0]?.id ?? 0
  })
  after(() => house.stop())

  async function addRule(did: string): Promise<number> {
    const { items } = await house.client.addRules({ body: { dids: [did], copies: 1, expression: 'SITE-B' } })
    return items[0]?.id ?? 0
  }
  const waybill = async (line: string): Promise<string> => {
    const { status, out, err } = await runCommand(house, line)
    expect([status, err]).to.deep.equal([0, ''])
    return out
  }

  it('nothing moves without a worker: both say so (rucio #8531)', async () => {
    const why = await house.client.getTransferWhy({ params: { id: transfer } })
    expect(why).to.deep.include({
      id: transfer,
      state: 'QUEUED',
      code: 'NO_WORKER',
      sentence: 'no worker that serves its VO is there',
      figures: { alive: 0, drained: 0, serving: 0 },
      source: 'SITE-A',
      destination: 'SITE-B',
    })
    const out = await waybill(`transfer why ${transfer}`)
    expect(out).to.match(/^code +NO_WORKER$/m)
    expect(out).to.match(/^why +no worker that serves its VO is there$/m)
    expect(out).to.match(/^alive +0$/m)
    expect(JSON.parse(await waybill(`transfer why ${transfer} --json`))).to.deep.equal(why)
  })

  it('files of a rule that wait for the same are counted together', async () => {
    const why = await house.client.getRuleWhy({ params: { id: rule } })
    expect(why).to.deep.include({
      state: 'REPLICATING',
      sentence: '3 of 3 files are not there yet',
      looked: 3,
      more: false,
    })
    expect(why.problems).to.deep.equal([])
    expect(why.groups.map(({ code, count, source, destination }) => [code, count, source, destination])).to.deep.equal([
      ['NO_WORKER', 3, 'SITE-A', 'SITE-B'],
    ])
    const out = await waybill(`rule why ${rule}`)
    expect(out).to.match(/^why +3 of 3 files are not there yet$/m)
    expect(out).to.match(/^3 +NO_WORKER +SITE-A +SITE-B +- +\d+ +no worker that serves its VO is there$/m)
  })

  it('when it is looked at again is a time that people can read', async () => {
    await waybill('rse set SITE-B --write off')
    const closed = () => waybill(`transfer why ${transfer}`)
    const out = await until(closed, text => /^state +WAITING$/m.test(text))
    expect(out).to.match(/^code +DESTINATION_CLOSED$/m)
    expect(out).to.match(/^again +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/m)
    await waybill('rse set SITE-B --write on')
  })

  it('another VO is told that there is no such thing', async () => {
    for (const [line, code] of [
      [`transfer why ${transfer}`, 'TRANSFER_UNKNOWN'],
      [`rule why ${rule}`, 'RULE_UNKNOWN'],
      ['transfer why 900001', 'TRANSFER_UNKNOWN'],
    ] as const) {
      const { status, out, err } = await runCommand(house, line, 'server')
      expect([status, out]).to.deep.equal([1, ''])
      expect(err).to.contain(code)
    }
  })

  it('a stuck rule names the file, the storage and the last error, and when it is repaired (rucio #781)', async () => {
    const lost = { rse: 'SITE-A', dataset: 'exp:lost', files: [{ did: 'exp:lost/f0', bytes: 5 }] }
    await house.client.registerReplicas({ body: lost })
    const stuck = await addRule('exp:lost')
    await house.startWorker()
    const why = await until(
      () => house.client.getRuleWhy({ params: { id: stuck } }),
      found => found.again !== undefined,
    )
    expect(why.sentence).to.equal('it is stuck: 1 of 1 files could not be copied')
    expect(why.problems.map(({ did, rse, code }) => [did, rse, code])).to.deep.equal([
      ['exp:lost/f0', 'SITE-B', 'SOURCE_MISSING'],
    ])
    expect(await waybill(`rule why ${stuck}`)).to.match(/^exp:lost\/f0 +SITE-B +SOURCE_MISSING /m)
    const { items } = await house.client.listRuleTransfers({ params: { id: stuck } })
    const failed = await house.client.getTransferWhy({ params: { id: items[0]?.id ?? 0 } })
    expect([failed.code, failed.figures.error]).to.deep.equal(['FAILED', 'SOURCE_MISSING'])
  })
})
