import { expect } from 'chai'
import { runCommand } from '../house/command.ts'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { until } from '../house/until.ts'

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

  it('a storage in the place of another is refused, and an attribute that is called like one', async () => {
    const { protocols } = await storage()
    const url = protocols[0]?.url ?? ''
    const refused = (line: string) => runCommand(house, line).then(({ status, err }) => [status, err])
    for (const prefix of ['/data/exp', '/data', '/data/exp/below']) {
      const [status, err] = await refused(`rse add ALIAS --prefix ${prefix} --url ${url}`)
      expect(status).to.equal(1)
      expect(err).to.contain('is where SITE-B has its files already').and.to.contain('RSE_OVERLAPS')
    }
    const [status, err] = await refused('rse attribute SITE-B SITE-A true')
    expect(status).to.equal(1)
    expect(err).to.contain('NAME_TAKEN')
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
    const more = `--prefix /data/other --url ${own} --watchdog connect=default --watchdog headers=3`
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

  describe('removal', () => {
    const names = async () => (await house.client.listRses()).items.map(({ name }) => name)
    const refusal = async (name: string): Promise<string> => {
      const { status, err } = await runCommand(house, `rse remove ${name}`)
      expect(status).to.equal(1)
      expect(err).to.contain('RSE_IN_USE').and.to.contain(`waybill rse set ${name} --read off`)
      return err
    }

    it('of one that nothing was ever at', async () => {
      await run(`rse add SITE-X --prefix /data/more --url ${own} --attribute tier=9`)
      await run('rse distance SITE-X SITE-B')
      await run('rse distance SITE-B SITE-X')
      await run('rse remove SITE-X')
      expect(await names()).to.not.include('SITE-X')
      const links = (await house.client.listDistances()).items
      expect(links.filter(({ source, destination }) => [source, destination].includes('SITE-X'))).to.deep.equal([])
      expect((await runCommand(house, 'rse remove SITE-X')).err).to.contain('RSE_UNKNOWN')
      await run(`rse add SITE-X --prefix /data/more --url ${own}`)
      expect((await house.client.getRse({ params: { rse: 'SITE-X' } })).attributes).to.deep.equal({})
    })

    it('not of one with replicas, or that rules have chosen or need: it says what, and nothing is changed', async () => {
      const file = { did: 'exp:f', bytes: 1, adler32: '00620062' }
      await house.client.registerReplicas({ body: { rse: 'SITE-A', dataset: 'exp:d', files: [file] } })
      const body = { dids: ['exp:d'], copies: 1, expression: 'SITE-B|SITE-X' }
      await house.client.updateRse({ params: { rse: 'SITE-X' }, body: { availabilityWrite: false } })
      await house.client.addRules({ body })
      expect(await refusal('SITE-A')).to.contain('SITE-A stays for replicas, ')
      expect(await refusal('SITE-X')).to.contain("SITE-X stays for a rule's expression SITE-B|SITE-X")
      await until(
        () => refusal('SITE-B'),
        words => words.includes('replicas, transfers, what was there once, choices of rules'),
      )
      expect(await names()).to.include.members(['SITE-A', 'SITE-B', 'SITE-X'])
      expect((await storage()).protocols).to.have.length(1)
    })
  })
})
