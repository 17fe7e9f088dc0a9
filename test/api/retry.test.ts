import { expect } from 'chai'
import { query } from '../../server/database/sql.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { askCopy, placeDataset, someFiles, untilRule } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'

const files = someFiles(1)

describe('what need not wait any longer', () => {
  let house: House
  before(async () => {
    house = await startHouse({
      server: { retry: { maxAttempts: 2, soonSeconds: 0.1, laterSeconds: 0.1, maxDelaySeconds: 0.1 } },
    })
    await house.addStorages()
    await house.startWorker()
  })
  after(() => house.stop())

  it('a destination that is held back says so, and is tried at once when an admin asks for it', async () => {
    await placeDataset(house, 'SITE-C', 'room-again', files)
    house.storages.get('SITE-A')?.refuse({ verb: 'COPY', status: 507, times: 1 })
    const rule = await askCopy(house, 'room-again', 'SITE-A')
    const params = { rse: 'SITE-A' }
    const { failing: [held] = [] } = await until(
      () => house.client.getRse({ params }),
      ({ failing }) => failing !== undefined,
    )
    expect(held).to.include({ vo: 'exp', code: 'DESTINATION_FULL', holds: 1 })
    expect((held?.heldUntil ?? 0) - (held?.since ?? 0)).to.equal(60_000)
    const listed = (await house.client.listRses({ query: {} })).items
    expect(listed.find(({ name }) => name === 'SITE-A')?.failing).to.deep.equal([held])
    expect(await house.client.retryRse({ params })).to.deep.equal({ lifted: 1 })
    const before = systemClock.monotonic()
    await untilRule(house, rule, 'OK')
    expect(systemClock.monotonic() - before).to.be.below(30_000)
    expect(await house.client.retryRse({ params })).to.deep.equal({ lifted: 0 })
  })

  it('a source that is held back on a link is tried at once, too', async () => {
    const db = house.database.open()
    const later = systemClock.now() + 3_600_000
    await db.write(executor =>
      query(
        executor,
        `INSERT INTO link_health (link_id, since, failed_at, gave_at, failures, successes, confirmed, session_id, holds, held_until, code, message)
         SELECT links.id, 1, 1, 0, 0, 0, true, 1, 1, :until, 'CONNECT_FAILED', 'refused' FROM links
           JOIN rses ON rses.id = destination_rse_id AND rses.name = 'SITE-C'`,
        { until: later },
      ),
    )
    await db.close()
    expect(await house.client.retryRse({ params: { rse: 'SITE-A' } })).to.deep.equal({ lifted: 1 })
    const held = (await house.client.listDistances()).items.flatMap(({ source, failing }) =>
      failing === undefined ? [] : [[source, (failing.heldUntil ?? 0) === later]],
    )
    expect(held).to.deep.include.members([
      ['SITE-A', false],
      ['SITE-B', true],
    ])
    expect(await house.client.retryRse({ params: { rse: 'SITE-B' } })).to.deep.equal({ lifted: 1 })
  })

  it('a rule that is stuck is repaired at once when its owner asks for it', async () => {
    await placeDataset(house, 'SITE-A', 'mended', files)
    house.storages.get('SITE-B')?.refuse({ verb: 'COPY', status: 403, times: 2 })
    const rule = await untilRule(house, await askCopy(house, 'mended', 'SITE-B'), 'STUCK')
    const params = { id: rule.id }
    expect(await house.client.repairRule({ params })).to.include({ id: rule.id, state: 'STUCK' })
    await untilRule(house, rule.id, 'OK')
    const refused = await house.client.repairRule({ params }).then(
      () => undefined,
      (error: { code?: string; status?: number }) => [error.code, error.status],
    )
    expect(refused).to.deep.equal(['RULE_NOT_STUCK', 409])
  })
})
