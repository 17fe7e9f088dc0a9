import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { runCommand } from '../house/command.ts'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'
import { uploadFiles } from '../house/upload.ts'

describe('a rule moves files with narrow tokens, end to end', () => {
  let house: House

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    await house.startWorker()
  })
  after(() => house.stop())

  it('one file, one rule, one grant on each side', async () => {
    await uploadFiles(house, 'SITE-A', 'exp:run1', [{ did: 'exp:f1', content: Buffer.from('hello, world') }])
    const { items } = await house.client.addRules({ body: { dids: ['exp:run1'], copies: 1, expression: 'SITE-B' } })
    const id = items[0]?.id ?? 0
    const rule = await until(
      () => house.client.getRule({ params: { id } }),
      found => found.state === 'OK',
    )
    expect(rule.locks).to.deep.equal({ ok: 1, replicating: 0, stuck: 0 })
    const [replica] = (await house.client.listReplicas({ query: { did: 'exp:f1', rse: 'SITE-B' } })).items
    expect(replica?.state).to.equal('AVAILABLE')
    const copy = await readFile(join(house.sandbox.storages[1]?.directory ?? '', 'data/exp/exp/run1/f1'))
    expect(adler32Hex(adler32(copy))).to.equal(replica?.adler32)
    const [transfer] = (await house.client.listTransfers()).items
    const { out } = await runCommand(house, `transfer show ${transfer?.id}`)
    const [titles = '', attempt = ''] = out.split('\n').slice(-3)
    expect(titles.split(/ {2,}/)).to.deep.equal('STARTED ENDED FROM MODE OUTCOME BYTES CODE MESSAGE'.split(' '))
    expect(attempt).to.match(/^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ {2}){2}SITE-A {2}pull {2}done {5}12 B$/)
    const grants = (await house.client.listGrants()).items.filter(grant => grant.purpose !== 'upload')
    expect(grants.map(({ rse, scopes, minted, exchanged }) => ({ rse, scopes, minted, exchanged }))).to.deep.equal([
      { rse: 'SITE-A', scopes: ['storage.read:/exp/exp/run1'], minted: 1, exchanged: 1 },
      {
        rse: 'SITE-B',
        scopes: ['storage.create:/exp/exp/run1', 'storage.read:/exp/exp/run1'],
        minted: 1,
        exchanged: 1,
      },
    ])
  })
})
