import { expect } from 'chai'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { placeDataset, someFiles, untilRule } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { until } from '../house/until.ts'

describe('limits, and what rules would do', () => {
  let house: House
  let raw: RawCalls

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    raw = await RawCalls.create(house)
    // 300 bytes.
    await placeDataset(house, 'SITE-A', 'run1', someFiles(3))
  })
  after(() => house.stop())

  const ask = (more: object = {}) => ({ dids: ['exp:run1'], copies: 1, expression: 'SITE-B', ...more })
  const limit = (account: string | undefined, expression: string, bytes: number | null) =>
    house.client.setLimit({ body: { expression, bytes, ...(account === undefined ? {} : { account }) } })
  const noLimit = (account: string | undefined, expression: string) =>
    house.client.removeLimit({ query: { expression, ...(account === undefined ? {} : { account }) } })

  it('a dry run says what would be chosen and how many bytes would move, and does nothing', async () => {
    const { items } = await house.client.previewRules({ body: ask({ copies: 2, expression: 'SITE-A|SITE-B' }) })
    expect(items).to.deep.equal([
      {
        did: 'exp:run1',
        files: 3,
        bytes: 300,
        exact: true,
        places: [
          { rse: 'SITE-A', bytes: 300, bytesToMove: 0 },
          { rse: 'SITE-B', bytes: 300, bytesToMove: 300 },
        ],
      },
    ])
    expect((await house.client.listRules({ query: {} })).items).to.deep.equal([])
  })

  it('a dry run chooses what the rule then gets, each dataset for itself', async () => {
    for (let i = 0; i < 8; i += 1) await placeDataset(house, 'SITE-A', `part${i}`, someFiles(1, 10 + i))
    await house.client.addDids({
      body: { dids: [{ did: 'exp:parts', type: 'CONTAINER' }] },
    })
    const dids = Array.from({ length: 8 }, (_, i) => `exp:part${i}`)
    await house.client.attach({ params: { scope: 'exp', name: 'parts' }, body: { dids } })
    const body = ask({ dids: ['exp:parts'], expression: 'SITE-B|SITE-C' })
    const [preview] = (await house.client.previewRules({ body })).items
    const [rule] = (await house.client.addRules({ body })).items
    await until(
      () => house.client.getRule({ params: { id: rule?.id ?? 0 } }),
      found => found.expanded,
    )
    const { items: usage } = await house.client.getUsage({ params: { account: 'alice' }, query: {} })
    const locked = usage.map(({ rse, bytes }) => [rse, bytes])
    expect(locked).to.deep.equal(preview?.places.map(({ rse, bytes }) => [rse, bytes]))
    await house.client.removeRule({ params: { id: rule?.id ?? 0 } })
  })

  it('a rule above the quota is refused, with the storages and the reason', async () => {
    await limit('alice', 'SITE-B', 299)
    const { detail } = await raw.refusal([409, 'QUOTA_EXCEEDED', 'dids.0'], 'POST', '/v1/rules', { body: ask() })
    expect(detail).to.contain('SITE-B: above the quota of the account')
    await raw.refusal([409, 'QUOTA_EXCEEDED', 'dids.0'], 'POST', '/v1/rules/preview', { body: ask() })
    await limit('alice', 'SITE-B', 300)
    await house.client.previewRules({ body: ask() })
    await noLimit('alice', 'SITE-B')
  })

  it('a global limit is of all storages together: no dataset of the container need be above it', async () => {
    await limit('alice', 'SITE-B|SITE-C', 100)
    const body = ask({ dids: ['exp:parts'], expression: 'SITE-B|SITE-C' })
    const refused = [409, 'QUOTA_EXCEEDED', 'dids.0'] as const
    const { detail } = await raw.refusal(refused, 'POST', '/v1/rules', { body })
    expect(detail).to.contain('108 bytes').and.to.contain('no more than 100')
    await noLimit('alice', 'SITE-B|SITE-C')
  })

  it('what every account has counts where the account has no limit of its own', async () => {
    await limit(undefined, '*', 0)
    await raw.refusal([409, 'QUOTA_EXCEEDED', 'dids.0'], 'POST', '/v1/rules', { body: ask() })
    await limit('alice', 'SITE-B', null)
    await house.client.previewRules({ body: ask() })
    const { items } = await house.client.listLimits({ query: { account: 'alice' } })
    expect(items).to.have.deep.members([
      { account: 'alice', vo: 'exp', expression: 'SITE-B', bytes: null },
      { vo: 'exp', expression: '*', bytes: 0 },
    ])
    await noLimit('alice', 'SITE-B')
    await noLimit(undefined, '*')
  })

  it('a rule that grew above the quota is stuck and says so, and goes on when the limit is raised', async () => {
    await limit('alice', 'SITE-B', 300)
    const [rule] = (await house.client.addRules({ body: ask() })).items
    await until(
      () => house.client.getRule({ params: { id: rule?.id ?? 0 } }),
      found => found.expanded,
    )
    await house.client.registerReplicas({
      body: { rse: 'SITE-A', dataset: 'exp:run1', files: [{ did: 'exp:run1/late', bytes: 1, adler32: '00010001' }] },
    })
    const stuck = await untilRule(house, rule?.id ?? 0, 'STUCK')
    expect(stuck.error).to.contain('QUOTA_EXCEEDED').and.to.contain('SITE-B: above the quota of the account')
    await limit('alice', 'SITE-B', 301)
    const { items } = await until(
      () => house.client.getUsage({ params: { account: 'alice' }, query: {} }),
      found => found.items.some(({ rse, files }) => rse === 'SITE-B' && files === 4),
    )
    expect(items).to.deep.include({ rse: 'SITE-B', files: 4, bytes: 301, reserved: 0, left: 0 })
    await untilRule(house, rule?.id ?? 0, 'REPLICATING')
    await noLimit('alice', 'SITE-B')
  })

  it('a rule that found too little goes on when another rule of the account is gone', async () => {
    await placeDataset(house, 'SITE-A', 'waits', someFiles(1, 100))
    const asked = async (did: string) => {
      const [rule] = (await house.client.addRules({ body: ask({ dids: [did], expression: 'SITE-C' }) })).items
      const id = rule?.id ?? 0
      await until(
        () => house.client.getRule({ params: { id } }),
        found => found.expanded,
      )
      return id
    }
    const first = await asked('exp:run1')
    const second = await asked('exp:waits')
    const { items: used } = await house.client.getUsage({ params: { account: 'alice' }, query: {} })
    await limit('alice', 'SITE-C', used.find(({ rse }) => rse === 'SITE-C')?.bytes ?? 0)
    await house.client.registerReplicas({
      body: { rse: 'SITE-A', dataset: 'exp:waits', files: [{ did: 'exp:waits/late', bytes: 1, adler32: '00010001' }] },
    })
    await untilRule(house, second, 'STUCK')
    await house.client.removeRule({ params: { id: first } })
    await untilRule(house, second, 'REPLICATING')
    await noLimit('alice', 'SITE-C')
  })

  it('an upload is refused above the quota, but for what the account has locked there, and makes nothing', async () => {
    const { publicJwk: key } = await newRecipient()
    const files = [{ did: 'exp:up/f', bytes: 10, adler32: '00010001' }]
    const body = { rse: 'SITE-B', dataset: 'exp:up', files, key }
    await limit(undefined, '*', 0)
    const { detail } = await raw.refusal([409, 'QUOTA_EXCEEDED', 'files'], 'POST', '/v1/uploads', { body })
    expect(detail).to.contain('10 bytes').and.to.contain('SITE-B')
    await raw.refusal([404, 'DID_UNKNOWN', 'did'], 'GET', '/v1/dids/exp/up', {})
    const { items } = await house.client.getUsage({ params: { account: 'alice' }, query: {} })
    const used = items.find(({ rse }) => rse === 'SITE-B')?.bytes ?? 0
    await limit('alice', 'SITE-B', used + 10)
    expect((await house.client.planUpload({ body })).token).to.be.a('string')
    await limit('alice', 'SITE-B', used)
    await raw.refusal([409, 'QUOTA_EXCEEDED', 'files'], 'POST', '/v1/uploads', { body })
    const locked = { ...body, dataset: 'exp:run1', files: [{ did: 'exp:run1/late', bytes: 1, adler32: '00010001' }] }
    expect((await house.client.planUpload({ body: locked })).token).to.be.a('string')
    await noLimit('alice', 'SITE-B')
    await noLimit(undefined, '*')
  })

  it('limits are listed page by page', async () => {
    const expressions = ['SITE-A', 'SITE-B', 'SITE-C']
    for (const expression of expressions) await limit('alice', expression, 1)
    const first = await house.client.listLimits({ query: { limit: 2 } })
    const second = await house.client.listLimits({ query: { limit: 2, cursor: first.next ?? '' } })
    expect([...first.items, ...second.items].map(({ expression }) => expression)).to.deep.equal(expressions)
    expect(second.next).to.equal(undefined)
    for (const expression of expressions) await noLimit('alice', expression)
  })

  it('what is not there cannot be limited, and says so', async () => {
    const body = { expression: 'SITE-A', bytes: 1 }
    await raw.refusal([404, 'ACCOUNT_UNKNOWN', 'account'], 'PUT', '/v1/limits', {
      body: { ...body, account: 'nobody' },
    })
    await raw.refusal([400, 'RSE_EXPRESSION_UNKNOWN', 'expression'], 'PUT', '/v1/limits', {
      body: { ...body, expression: 'NOWHERE' },
    })
    await raw.refusal([404, 'LIMIT_UNKNOWN', 'expression'], 'DELETE', '/v1/limits?expression=SITE-A')
    await raw.refusal([400, 'WEIGHT_UNKNOWN', 'weight'], 'POST', '/v1/rules', { body: ask({ weight: 'nowhere' }) })
  })
})
