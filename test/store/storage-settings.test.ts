import { expect } from 'chai'
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
  })
}
