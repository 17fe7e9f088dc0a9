import { expect } from 'chai'
import { placeDataset, someFiles, transfersOf, untilRule } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { until } from '../house/until.ts'

describe('a rule that says where its files come from', () => {
  let house: House
  let raw: RawCalls

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    raw = await RawCalls.create(house)
    for (const rse of ['SITE-A', 'SITE-B']) await placeDataset(house, rse, 'both', someFiles(3))
    await house.client.setAttribute({ params: { rse: 'SITE-B', key: 'gives' }, body: { value: true } })
    await house.startWorker('w')
  })
  after(() => house.stop())

  const rule = { dids: ['exp:both'], copies: 1, expression: 'SITE-C' }

  for (const [what, sourceExpression, code, says] of [
    ['not well formed', 'gives|', 'RSE_EXPRESSION_SYNTAX', 'wrong at position 7: expected'],
    ['of unknown storages', 'gives|SITE-X', 'RSE_EXPRESSION_UNKNOWN', '"SITE-X" at position 7'],
    ['of none', 'gives&SITE-A', 'RSE_EXPRESSION_EMPTY', 'no RSE matches'],
  ] as const) {
    it(`is refused with an expression ${what}, and says where it is wrong`, async () => {
      for (const path of ['/v1/rules', '/v1/rules/preview']) {
        const expected = [400, code, 'sourceExpression'] as const
        const refused = await raw.refusal(expected, 'POST', path, { body: { ...rule, sourceExpression } })
        expect(refused.detail).to.include(says)
      }
    })
  }

  it('gets them from there, and shows and keeps what it said', async () => {
    const { items } = await house.client.addRules({ body: { ...rule, sourceExpression: 'gives' } })
    const [made] = items
    if (made === undefined) throw new Error('no rule was made')
    expect(made.sourceExpression).to.equal('gives')
    await untilRule(house, made.id, 'OK')
    const copied = await transfersOf(house, made.id)
    expect(copied.map(({ source, state }) => [source, state])).to.deep.equal([
      ['SITE-B', 'DONE'],
      ['SITE-B', 'DONE'],
      ['SITE-B', 'DONE'],
    ])
    const moved = await house.client.replaceRule({ params: { id: made.id }, body: { expression: 'SITE-A|SITE-C' } })
    expect(moved.sourceExpression).to.equal('gives')
    const events = await house.client.listRuleEvents({ params: { id: made.id }, query: {} })
    expect(events.items[0]?.details).to.include({ sourceExpression: 'gives' })
  })

  it('waits while none of them can give them, and follows the attributes of storages', async () => {
    await placeDataset(house, 'SITE-A', 'one', someFiles(1))
    const { items } = await house.client.addRules({ body: { ...rule, dids: ['exp:one'], sourceExpression: 'gives' } })
    const id = items[0]?.id ?? 0
    const waiting = await until(
      () => house.client.getRuleWhy({ params: { id } }),
      ({ groups }) => groups[0]?.code === 'NO_ALLOWED_SOURCE',
    )
    expect(waiting.groups[0]?.sentence).to.equal(
      'none of the storages that its rule names as sources (gives) can give it: SITE-A has one, and is none of them',
    )
    await house.client.setAttribute({ params: { rse: 'SITE-A', key: 'gives' }, body: { value: true } })
    await untilRule(house, id, 'OK', 30_000)
  })
})
