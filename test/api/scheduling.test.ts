import { expect } from 'chai'
import { query } from '../../server/database/sql.ts'
import { type House, startHouse } from '../house/house.ts'

const LINK = { source: 'SITE-A', destination: 'SITE-B' }

describe('what the API says of limits and shares', () => {
  let house: House
  before(async () => {
    house = await startHouse({ optimize: true })
    await house.addStorages()
  })
  after(() => house.stop())

  const link = async () =>
    (await house.client.listDistances()).items.find(
      ({ source, destination }) => source === LINK.source && destination === LINK.destination,
    )

  it('a new link is optimized, and begins with ten', async () => {
    expect(await link()).to.deep.include({ maxActive: 60, optimize: true, limit: 10 })
  })

  it('the lesser of what was set and learnt counts, and what was set alone where an admin fixes it', async () => {
    const set = (body: object) => house.client.setDistance({ params: LINK, body })
    expect(await set({ maxActive: 4 })).to.include({ maxActive: 4, optimize: true, limit: 4 })
    expect(await set({ maxActive: 40, optimize: false })).to.include({ maxActive: 40, optimize: false, limit: 40 })
    expect(await link()).to.include({ limit: 40 })
    expect(await set({ distance: 3 })).to.deep.equal({
      ...LINK,
      distance: 3,
      maxActive: 40,
      optimize: false,
      limit: 40,
    })
    expect(await set({ optimize: true })).to.include({ distance: 3, maxActive: 40, optimize: true, limit: 10 })
    await house.client.removeDistance({ params: LINK })
    expect(await set({})).to.include({ distance: 1, maxActive: 40, optimize: true, limit: 10 })
  })

  it('decisions are told with their reasons, the newest first', async () => {
    expect((await house.client.listDecisions({ params: LINK, query: {} })).items).to.deep.equal([])
    const db = house.database.open()
    await db.write(executor =>
      query(
        executor,
        `INSERT INTO link_decisions (link_id, at, subject, before, after, code, figures, sentence)
         SELECT links.id, given.at, given.subject, given.before, given.after, given.code, '{"files":7}', 'because' FROM links
           JOIN rses AS source ON source.id = source_rse_id AND source.name = 'SITE-A'
           JOIN rses AS destination ON destination.id = destination_rse_id AND destination.name = 'SITE-B'
           JOIN (SELECT 1 AS at, 'limit' AS subject, '10' AS before, '13' AS after, 'PROBE_UP' AS code
                 UNION ALL SELECT 2, 'mode', '"pull"', '"push"', 'OTHER_FASTER') AS given ON true ORDER BY given.at`,
      ),
    )
    await db.close()
    const why = { sentence: 'because', figures: { files: 7 } }
    expect((await house.client.listDecisions({ params: LINK, query: {} })).items).to.deep.equal([
      { at: 2, subject: 'mode', from: 'pull', to: 'push', code: 'OTHER_FASTER', ...why },
      { at: 1, subject: 'limit', from: 10, to: 13, code: 'PROBE_UP', ...why },
    ])
    expect((await house.client.listDecisions({ params: LINK, query: { limit: 1 } })).items).to.have.length(1)
  })

  it('activities have the weight one until they are given another', async () => {
    expect((await house.client.listActivities()).items).to.deep.equal([])
    const params = { activity: 'Data Export' }
    const share = { activity: 'Data Export', vo: 'exp', weight: 3, active: 0 }
    expect(await house.client.setActivity({ params, body: { weight: 3 } })).to.deep.equal(share)
    expect((await house.client.listActivities()).items).to.deep.equal([share])
    const refused = await house.client.setActivity({ params, body: { weight: 0 } }).then(
      () => undefined,
      (error: { status?: number }) => error.status,
    )
    expect(refused).to.equal(400)
  })
})
