import { expect } from 'chai'
import { runCommand } from '../house/command.ts'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'

describe('settings of a storage, through the command', () => {
  let house: House
  let own: string
  before(async () => {
    house = await startHouse()
    await house.addStorages()
    own = house.sandbox.storages.find(({ name }) => name === 'SITE-B')?.url ?? ''
  })
  after(() => house.stop())

  const run = async (line: string): Promise<void> => {
    const { status, err } = await runCommand(house, line)
    expect(status, err).to.equal(0)
  }
  const storage = () => house.client.getRse({ params: { rse: 'SITE-B' } })

  describe('protocols', () => {
    const OTHER = 'https://localhost:7999'
    const protocol = async (url: string) => (await storage()).protocols.find(candidate => candidate.url === url)
    const set = (flags: string, url = own) => run(`rse protocol SITE-B --url ${url} ${flags}`.trim())

    it('a new one has what most have, but for what is given', async () => {
      await set('--no-pull', OTHER)
      expect(await protocol(OTHER)).to.deep.equal({
        url: OTHER,
        priority: 0,
        canPull: false,
        canPush: true,
        freshConnections: false,
        macaroons: false,
        redirectHosts: [],
      })
    })

    it('what is not given stays as it is, and everything can be taken back', async () => {
      await set('--no-push --redirect-host x.example.org --redirect-host y.example.org --fresh-connections')
      const all = { canPull: true, canPush: false, freshConnections: true, macaroons: true }
      const redirectHosts = ['x.example.org', 'y.example.org']
      await set('--macaroons')
      expect(await protocol(own)).to.deep.include({ ...all, redirectHosts })
      await set('')
      expect(await protocol(own)).to.deep.include({ ...all, redirectHosts })
      await set('--push --no-macaroons')
      expect(await protocol(own)).to.deep.include({ ...all, canPush: true, macaroons: false, redirectHosts })
      await set('--no-redirect-host --no-fresh-connections')
      expect(await protocol(own)).to.deep.include({ canPush: true, freshConnections: false, redirectHosts: [] })
    })

    it('one can be removed, but not the last, nor one that is not there', async () => {
      await set('--remove', OTHER)
      expect((await storage()).protocols.map(({ url }) => url)).to.deep.equal([own])
      const refused = async (url: string): Promise<string> => {
        const { status, err } = await runCommand(house, `rse protocol SITE-B --url ${url} --remove`)
        expect(status).to.equal(1)
        return err
      }
      expect(await refused(own))
        .to.contain(`${own} is the only way to reach SITE-B`)
        .and.to.contain('PROTOCOL_LAST')
      expect(await refused(OTHER))
        .to.contain(`SITE-B has no protocol ${OTHER}; it has ${own}`)
        .and.to.contain('PROTOCOL_UNKNOWN')
      expect((await storage()).protocols.map(({ url }) => url)).to.deep.equal([own])
    })

    it('of two that are removed at once one stays', async () => {
      await set('', OTHER)
      const remove = (url: string) => house.client.removeProtocol({ params: { rse: 'SITE-B' }, query: { url } })
      const ends = await Promise.allSettled([remove(own), remove(OTHER)])
      expect(ends.map(({ status }) => status)).to.have.members(['fulfilled', 'rejected'])
      expect((await storage()).protocols).to.have.length(1)
    })
  })

  it('watchdogs are changed one by one, and taken back', async () => {
    const watchdogs = async () => (await storage()).watchdogs
    await run('rse set SITE-B --watchdog connect=5 --watchdog no-marker=8')
    await run('rse set SITE-B --watchdog headers=9.5')
    expect(await watchdogs()).to.deep.equal({ connectSeconds: 5, noMarkerSeconds: 8, headersSeconds: 9.5 })
    await run('rse set SITE-B --watchdog connect=default --watchdog no-marker=7')
    expect(await watchdogs()).to.deep.equal({ noMarkerSeconds: 7, headersSeconds: 9.5 })
    const raw = await RawCalls.create(house)
    await raw.call('PATCH', '/v1/rses/SITE-B', { body: { watchdogs: { noMarkerSeconds: null } } })
    expect(await watchdogs()).to.deep.equal({ headersSeconds: 9.5 })
    const more = `--prefix /data/exp --url ${own} --watchdog connect=default --watchdog headers=3`
    await run(`rse add SITE-N ${more}`)
    expect((await house.client.getRse({ params: { rse: 'SITE-N' } })).watchdogs).to.deep.equal({ headersSeconds: 3 })
  })

  it('capacity and free space are set and taken back', async () => {
    await run('rse set SITE-B --capacity 500T --min-free 50T')
    expect(await storage()).to.include({ capacityBytes: 5e14, minFreeBytes: 5e13 })
    await run('rse set SITE-B --min-free none')
    expect(await storage()).to.include({ capacityBytes: 5e14, minFreeBytes: null })
    await run('rse set SITE-B --capacity none')
    expect(await storage()).to.include({ capacityBytes: null, minFreeBytes: null })
  })
})
