import { expect } from 'chai'
import { askCopy, placeDataset, someFiles, untilRule } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { until } from '../house/until.ts'

describe('the life of a rule', () => {
  let house: House
  let raw: RawCalls

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    raw = await RawCalls.create(house)
    for (const name of ['moved', 'changed', 'asked', 'suspended'])
      await placeDataset(house, 'SITE-A', name, someFiles(3))
    await house.startWorker('w')
  })
  after(() => house.stop())

  const show = (id: number) => house.client.getRule({ params: { id } })
  const isGone = (id: number) =>
    until(
      () => raw.refusal([404, 'RULE_UNKNOWN', 'id'], 'GET', `/v1/rules/${id}`).catch(() => undefined),
      found => found !== undefined,
    )
  const events = async (id: number) => (await house.client.listRuleEvents({ params: { id }, query: {} })).items

  it('it is moved: the old copies go when the new ones are there', async () => {
    const old = await askCopy(house, 'moved', 'SITE-B')
    await untilRule(house, old, 'OK')
    const moved = await house.client.replaceRule({ params: { id: old }, body: { expression: 'SITE-C' } })
    expect(moved).to.deep.include({ expression: 'SITE-C', copies: 1, replaces: old })
    await untilRule(house, moved.id, 'OK')
    await isGone(old)
    expect(await show(moved.id)).not.to.have.property('replaces')
    const history = await until(
      () => events(old),
      found => found.at(-1)?.event === 'gone',
    )
    const [first, ...others] = history.map(({ event, actor }) => [event, actor])
    expect(first).to.deep.equal(['created', 'alice'])
    expect(others).to.deep.include(['replaced', 'alice'])
    expect(others).to.deep.include(['removed', undefined])
    const ofDid = await house.client.listDidEvents({ query: { did: 'exp:moved' } })
    expect(new Set(ofDid.items.map(({ rule }) => rule))).to.deep.equal(new Set([old, moved.id]))
  })

  it('it is changed, and says by whom', async () => {
    const id = await askCopy(house, 'changed', 'SITE-B')
    const change = { priority: 5, comment: 'now', lifetime: 3600, locked: true }
    const changed = await house.client.updateRule({ params: { id }, body: change })
    expect(changed).to.include({ priority: 5, comment: 'now', locked: true })
    expect((changed.expiresAt ?? 0) - changed.updatedAt).to.be.within(3_599_000, 3_601_000)
    await raw.refusal([409, 'RULE_LOCKED'], 'DELETE', `/v1/rules/${id}`)
    const open = await house.client.updateRule({
      params: { id },
      body: { lifetime: null, comment: null, locked: false },
    })
    expect(open).not.to.have.any.keys('expiresAt', 'comment')
    const updates = (await events(id)).filter(({ event }) => event === 'updated')
    expect(updates.map(({ actor }) => actor)).to.deep.equal(['alice', 'alice'])
    expect(updates[0]?.details).to.include({ priority: 5, comment: 'now', locked: true })
    await raw.refusal([400, 'INVALID'], 'PATCH', `/v1/rules/${id}`, { body: {} })
  })

  it('it waits for approval where that is asked for, whatever the quota', async () => {
    await house.client.setLimit({ body: { account: 'alice', expression: 'SITE-C', bytes: 1 } })
    const ask = { dids: ['exp:asked'], copies: 1, expression: 'SITE-C' }
    await raw.refusal([409, 'QUOTA_EXCEEDED', 'dids.0'], 'POST', '/v1/rules', { body: ask })
    const [rule] = (await house.client.addRules({ body: { ...ask, askApproval: true } })).items
    const id = rule?.id ?? 0
    expect(rule?.state).to.equal('WAITING_APPROVAL')
    await raw.refusal([409, 'RULE_STATE'], 'PATCH', `/v1/rules/${id}`, { body: { suspended: true } })
    await house.client.judgeRule({ params: { id }, body: { approve: true, reason: 'for the summer' } })
    await untilRule(house, id, 'OK')
    const approved = (await events(id)).find(({ event }) => event === 'approved')
    expect(approved).to.deep.include({ actor: 'alice', details: { reason: 'for the summer' } })
    await house.client.removeLimit({ query: { account: 'alice', expression: 'SITE-C' } })
  })

  it('it is suspended, and resumed', async () => {
    const id = await askCopy(house, 'suspended', 'SITE-C')
    await house.client.updateRule({ params: { id }, body: { suspended: true } })
    expect((await show(id)).state).to.equal('SUSPENDED')
    await house.client.updateRule({ params: { id }, body: { suspended: false } })
    await untilRule(house, id, 'OK')
    const kinds = (await events(id)).map(({ event }) => event)
    expect(kinds).to.include.members(['created', 'suspended', 'resumed'])
  })

  it('of a rule that never was nothing is known', async () => {
    await raw.refusal([404, 'RULE_UNKNOWN', 'id'], 'GET', '/v1/rules/900000/events')
  })
})
