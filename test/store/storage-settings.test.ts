import { expect } from 'chai'
import { deleteLimit, putLimit } from '../../server/accounts/limit-store.ts'
import { addUsage } from '../../server/accounts/usage-store.ts'
import { removeRse } from '../../server/storages/removal.ts'
import { deleteProtocol, putProtocol, updateRse } from '../../server/storages/store.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

for (const { name, open } of databases) {
  describe(`settings of a storage, on ${name}`, () => {
    const url = 'https://A.example.org'
    let test: TestDatabase
    let world: World
    let id: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
      id = (await world.rse('A')).id
    })
    afterEach(() => test.drop())

    const rse = async () => {
      world.context.storages.forget()
      return world.rse('A')
    }

    it('of a protocol what is not given stays as it is', async () => {
      await test.db.write(e => putProtocol(e, id, { url }))
      const fresh = { canPull: true, canPush: true, freshConnections: false, macaroons: false }
      expect((await rse()).protocols).to.deep.equal([{ url, priority: 0, ...fresh, redirectHosts: [] }])
      const changed = {
        priority: 3,
        canPull: false,
        canPush: false,
        freshConnections: true,
        macaroons: true,
        redirectHosts: ['x.example.org'],
      }
      for (const [key, value] of Object.entries(changed))
        await test.db.write(e => putProtocol(e, id, { url, [key]: value }))
      expect((await rse()).protocols).to.deep.equal([{ url, ...changed }])
    })

    it('the last protocol stays, whoever removes the others meanwhile', async () => {
      const urls = ['1', '2', '3', '4'].map(port => `${url}:${port}`)
      for (const each of urls) await test.db.write(e => putProtocol(e, id, { url: each }))
      const gone = await Promise.all(urls.map(each => test.db.write(e => deleteProtocol(e, id, each))))
      expect(gone.filter(Boolean)).to.have.length(3)
      expect((await rse()).protocols).to.have.length(1)
    })

    it('of two changes of watchdogs at a time none is lost', async () => {
      const change = (watchdogs: object) => test.db.write(e => updateRse(e, id, { watchdogs }))
      await Promise.all([change({ connectSeconds: 1 }), change({ headersSeconds: 2 }), change({ noMarkerSeconds: 3 })])
      await change({ headersSeconds: null })
      expect((await rse()).watchdogs).to.deep.equal({ connectSeconds: 1, noMarkerSeconds: 3 })
    })

    it('a storage is removed with all that was learnt of its links, and not once something is there', async () => {
      const [a, b] = [await world.rse('A'), await world.rse('B')]
      const ofVo = [a, b]
      await test.db.write(e => putProtocol(e, id, { url }))
      await world.change(
        `INSERT INTO link_minutes (link_id, minute, mode, files, bytes, milliseconds, squared_seconds, failures)
         SELECT id, 1, 'pull', 1, 1, 1, 1, 0 FROM links`,
      )
      await world.dataset('d', 1, 'B')
      const refused = await test.db.write(e => removeRse(e, b, ofVo)).catch((error: unknown) => error)
      expect(refused).to.include({ code: 'RSE_IN_USE' })
      expect(await world.number('SELECT count(*) AS n FROM links')).to.equal(2)
      await test.db.write(e => removeRse(e, a, ofVo))
      for (const table of ['links', 'link_minutes', 'rse_protocols']) {
        expect(await world.number(`SELECT count(*) AS n FROM ${table}`), table).to.equal(0)
      }
      expect(await world.number('SELECT count(*) AS n FROM rses')).to.equal(1)
    })

    it('a storage that an account uses, or that a limit names, stays; one that a rule had chosen and let go of does not', async () => {
      const [a, b] = [await world.rse('A'), await world.rse('B')]
      const refusal = () =>
        test.db
          .write(e => removeRse(e, a, [a, b]))
          .then(
            () => '',
            (error: Error) => error.message,
          )
      const { voId, accountId } = world
      await test.db.write(e => addUsage(e, accountId, [{ rse_id: a.id, files: 0, bytes: 0, reserved: 7 }]))
      expect(await refusal()).to.contain('what accounts use')
      await test.db.write(e => addUsage(e, accountId, [{ rse_id: a.id, files: 0, bytes: 0, reserved: -7 }]))
      const limit = { voId, accountId, expression: 'A', bytes: 1 }
      await test.db.write(e => putLimit(e, limit, 0))
      expect(await refusal()).to.contain("a limit's expression A")
      await test.db.write(e => deleteLimit(e, limit))
      expect(await refusal()).to.equal('')
      expect(await world.number('SELECT count(*) AS n FROM account_usage')).to.equal(0)
    })

    it('of a removal and a first use at a time one is refused', async () => {
      const a = await world.rse('A')
      const ends = await Promise.allSettled([world.dataset('d', 1, 'A'), test.db.write(e => removeRse(e, a, [a]))])
      expect(ends.map(({ status }) => status)).to.have.members(['fulfilled', 'rejected'])
      const left = await world.number('SELECT count(*) AS n FROM replicas')
      expect(left).to.equal(ends[0]?.status === 'fulfilled' ? 1 : 0)
    })
  })
}
