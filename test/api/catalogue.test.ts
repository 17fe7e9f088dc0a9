import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { listAll } from '../../shared/contract/client.ts'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import type { Secret } from '../../shared/domain/secret.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { askCopy, placeDataset, someFiles, untilRule } from '../house/dataset.ts'
import { AUDIENCE, type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { until } from '../house/until.ts'
import { uploadFiles } from '../house/upload.ts'

describe('the catalogue', () => {
  let house: House

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    await house.startWorker()
  })
  after(() => house.stop())

  const names = (items: readonly { did: string }[]): string[] => items.map(({ did }) => did)

  it('takes 10,000 replicas in one request, and the same again', async () => {
    const files = Array.from({ length: 10_000 }, (_, i) => ({ did: `exp:f${i}`, bytes: i, adler32: adler32Hex(i) }))
    const body = { rse: 'SITE-A', dataset: 'exp:large', files }
    const began = systemClock.monotonic()
    expect(await house.client.registerReplicas({ body })).to.deep.equal({
      files: 10_000,
      created: 10_000,
      attached: 10_000,
    })
    expect(systemClock.monotonic() - began).to.be.below(10_000)
    expect(await house.client.registerReplicas({ body })).to.deep.equal({ files: 10_000, created: 0, attached: 0 })
    const did = await house.client.getDid({ params: { scope: 'exp', name: 'large' } })
    expect(did).to.include({
      type: 'DATASET',
      files: 10_000,
      bytes: (10_000 * 9_999) / 2,
      open: true,
      account: 'alice',
    })
    const raw = await RawCalls.create(house)
    const more = { ...body, files: [...files, ...files.slice(0, 1)] }
    await raw.refusal([400, 'INVALID', 'files'], 'POST', '/v1/replicas', { body: more })
  })

  it('gives out a list of any length as NDJSON, an item a line, and refuses to give a part of it so', async () => {
    const options = {
      baseUrl: house.baseUrl,
      http: house.http,
      token: () => house.token('manager', AUDIENCE, ['wlcg']),
    }
    const params = { scope: 'exp', name: 'large' }
    const { items } = await house.client.listContents({ params, query: { limit: 1000 } })
    const all = []
    for await (const item of listAll(options, 'listContents', { params })) all.push(item)
    expect(all).to.have.length(10_000)
    expect(all.slice(0, 1000)).to.deep.equal(items)
    expect(new Set(names(all)).size).to.equal(10_000)
    const replicas = []
    for await (const item of listAll(options, 'listReplicas', { query: { did: 'exp:large' } })) replicas.push(item)
    expect(names(replicas)).to.deep.equal(names(all))

    const raw = await RawCalls.create(house)
    const headers = { Accept: 'application/json;q=0.1, application/x-ndjson' }
    await raw.refusal([400, 'INVALID', 'limit'], 'GET', '/v1/transfers?limit=10', { headers })
    await raw.refusal([404, 'DID_UNKNOWN', 'did'], 'GET', '/v1/replicas?did=exp:none', { headers })
  })

  it('gives out replicas a page at a time, each once', async () => {
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const query = { did: 'exp:large', limit: 1000, ...(cursor === undefined ? {} : { cursor }) }
      const page = await house.client.listReplicas({ query })
      seen.push(...names(page.items))
      cursor = page.next
    } while (cursor !== undefined)
    expect(seen).to.have.length(10_000)
    expect(new Set(seen).size).to.equal(10_000)
  })

  it('has datasets in containers, and adds up what is below', async () => {
    const { client } = house
    for (const [dataset, bytes] of [
      ['part1', 10],
      ['part2', 20],
    ] as const) {
      const files = [{ did: `exp:${dataset}/f`, bytes, adler32: '1' }]
      await client.registerReplicas({ body: { rse: 'SITE-A', dataset: `exp:${dataset}`, files } })
    }
    const dids = ['exp:all', 'exp:half'].map(did => ({ did, type: 'CONTAINER' as const }))
    expect(await client.addDids({ body: { dids } })).to.deep.equal({ created: 2 })
    expect(await client.addDids({ body: { dids } })).to.deep.equal({ created: 0 })
    const attach = (name: string, children: string[]) =>
      client.attach({ params: { scope: 'exp', name }, body: { dids: children } })
    await attach('half', ['exp:part1'])
    expect(await attach('all', ['exp:half', 'exp:part2'])).to.deep.equal({ attached: 2 })
    expect(await attach('all', ['exp:half'])).to.deep.equal({ attached: 0 })
    expect(await client.getDid({ params: { scope: 'exp', name: 'all' } })).to.include({ files: 2, bytes: 30 })
    const { items } = await client.listContents({ params: { scope: 'exp', name: 'all' } })
    expect(items.map(({ did, files, bytes }) => [did, files, bytes])).to.have.deep.members([
      ['exp:half', 1, 10],
      ['exp:part2', 1, 20],
    ])
    // What a container holds on two ways counts once.
    await attach('all', ['exp:part1'])
    await client.addDids({ body: { dids: [{ did: 'exp:none', type: 'CONTAINER' }] } })
    const listed = (await client.listDids({ query: { scope: 'exp', type: 'CONTAINER' } })).items
    expect(listed.map(({ did, files, bytes }) => [did, files, bytes])).to.deep.equal([
      ['exp:all', 2, 30],
      ['exp:half', 1, 10],
      ['exp:none', 0, 0],
    ])
    for (const item of listed) {
      const params = { scope: 'exp', name: item.did.slice('exp:'.length) }
      expect(await client.getDid({ params })).to.deep.equal(item)
    }
  })

  it('lists by prefix and type', async () => {
    const list = async (query: { prefix?: string; type?: 'FILE' | 'DATASET' | 'CONTAINER' }) =>
      names((await house.client.listDids({ query: { scope: 'exp', ...query } })).items)
    expect(await list({ prefix: 'part' })).to.deep.equal(['exp:part1', 'exp:part1/f', 'exp:part2', 'exp:part2/f'])
    expect(await list({ type: 'CONTAINER' })).to.deep.equal(['exp:all', 'exp:half', 'exp:none'])
    expect(await list({ type: 'DATASET' })).to.deep.equal(['exp:large', 'exp:part1', 'exp:part2'])
    expect(await list({ prefix: 'PART' })).to.deep.equal([])
  })

  it('closes and opens datasets', async () => {
    const params = { scope: 'exp', name: 'part1' }
    expect((await house.client.setOpen({ params, body: { open: false } })).open).to.equal(false)
    expect((await house.client.getDid({ params })).open).to.equal(false)
    expect((await house.client.setOpen({ params, body: { open: true } })).open).to.equal(true)
  })

  it('gives people tokens for one directory, to upload and to download', async () => {
    const content = Buffer.from('what somebody has on a laptop')
    await uploadFiles(house, 'SITE-B', 'exp:mine/raw', [{ did: 'exp:mine/raw/a.txt', content }])
    const recipient = await newRecipient()
    const plan = await house.client.planDownload({ body: { did: 'exp:mine/raw', key: recipient.publicJwk } })
    const [file] = plan.files
    const [access] = plan.accesses
    if (file === undefined || access === undefined) throw new Error('nothing to download')
    expect(file).to.include({ did: 'exp:mine/raw/a.txt', bytes: content.length, access: 0 })
    const token = await recipient.open(access.token, access.context)
    const get = (url: string) =>
      house.http.request({ method: 'GET', url, headers: { Authorization: `Bearer ${token.reveal()}` } })
    expect(await (await get(file.url)).text(1000)).to.equal(content.toString())
    expect((await get(file.url.replace('mine~raw', 'mine~raws'))).status).to.equal(403)
    const grants = (await house.client.listGrants()).items.filter(({ purpose }) => /load$/.test(purpose))
    expect(grants.map(({ purpose, scopes, exchanged }) => [purpose, scopes, exchanged])).to.deep.equal([
      ['upload', ['storage.create:/exp/exp/mine~raw', 'storage.read:/exp/exp/mine~raw'], 0],
      ['download', ['storage.read:/exp/exp/mine~raw'], 0],
    ])
  })

  it('gives few tokens for files that a layout scatters over many directories', async () => {
    const { client, sandbox } = house
    const { url, audience } = sandbox.storages[2] ?? { url: '', audience: '' }
    await client.addRse({
      body: {
        name: 'HASHED',
        prefix: '/data/hashed',
        basePath: '/data',
        audience,
        layout: 'hash',
        protocols: [{ url }],
      },
    })
    const files = Array.from({ length: 100 }, (_, i) => ({ did: `exp:h${i}`, bytes: 1, adler32: '1' }))
    await client.registerReplicas({ body: { rse: 'HASHED', dataset: 'exp:scattered', files } })
    const recipient = await newRecipient()
    const plan = await client.planDownload({ body: { did: 'exp:scattered', key: recipient.publicJwk } })
    expect([plan.files.length, plan.accesses.length]).to.deep.equal([100, 4])
    const scopes = await Promise.all(
      plan.accesses.map(async ({ token, context }) => scopesOf(await recipient.open(token, context))),
    )
    for (const file of plan.files) {
      const directory = new URL(file.url).pathname.replace(/^\/data(.*)\/[^/]+$/, '$1')
      expect(scopes[file.access]).to.include(`storage.read:${directory}`)
    }
  })

  it('takes over a directory tree that lies at a storage', async () => {
    const [storage] = house.sandbox.storages
    const root = join(storage?.directory ?? '', 'data/exp/old')
    const tree: Record<string, string> = { 'a.dat': 'a', 'deep/er/b.dat': 'bb', 'deep/c.dat': '', 'odd name': 'x' }
    for (const [path, content] of Object.entries(tree)) {
      await mkdir(join(root, path, '..'), { recursive: true })
      await writeFile(join(root, path), content)
    }
    const job = { rse: 'SITE-A', path: '/data/exp/old', dataset: 'exp:old' }
    const { id } = await house.client.addImport({ body: job })
    const done = await until(
      () => house.client.getImport({ params: { id } }),
      found => found.state === 'DONE' || found.state === 'FAILED',
    )
    expect(done).to.include({ state: 'DONE', files: 3, bytes: 3, leftOut: 1 })
    const problems = await house.client.listImportProblems({ params: { id }, query: {} })
    expect(problems.items.map(({ path, code }) => [path, code])).to.deep.equal([['odd name', 'NAME_INVALID']])
    const { items } = await house.client.listReplicas({ query: { did: 'exp:old' } })
    expect(items.map(({ did, adler32: sum, url }) => [did, sum, new URL(url).pathname])).to.have.deep.members(
      ['a.dat', 'deep/er/b.dat', 'deep/c.dat'].map(path => [
        `exp:old/${path}`,
        adler32Hex(adler32(Buffer.from(tree[path] ?? ''))),
        `/data/exp/old/${path}`,
      ]),
    )
    await untilRule(house, await askCopy(house, 'old', 'SITE-C'), 'OK')
  })

  it('tells what the installation is doing', async () => {
    const status = await until(
      () => house.client.status(),
      found => found.rules.OK === 1,
    )
    expect(status.workers.map(({ name, client }) => [name, client])).to.deep.equal([['worker-1', 'waybill-worker']])
    expect(status.tokenRequests.minted).to.be.at.least(4)
    expect(status.transfers).to.deep.equal({})
    expect((await house.client.listVos()).items).to.deep.equal([{ name: 'exp', issuers: [house.sandbox.issuer] }])
    expect((await house.client.listAccounts()).items).to.deep.equal([{ name: 'alice', vo: 'exp' }])
    expect(await house.client.readyz()).to.deep.equal({})
  })

  it('serves the figures of server and worker', async () => {
    await placeDataset(house, 'SITE-A', 'counted', someFiles(2))
    await untilRule(house, await askCopy(house, 'counted', 'SITE-B'), 'OK')
    const second = await house.startWorker('worker-2')
    const figures = async (port: number | undefined): Promise<string> => {
      const response = await house.http.request({ method: 'GET', url: `http://127.0.0.1:${port}/metrics` })
      return response.text(1_000_000)
    }
    const server = await figures(house.server.metricsPort)
    expect(server).to.contain('waybill_transfers_total{source="SITE-A",destination="SITE-B",outcome="done"} 2')
    expect(server).to.match(
      /waybill_token_requests_total\{issuer="https:[^}]*grant_type="client_credentials"[^}]*outcome="ok"\} \d/,
    )
    expect(server).to.match(/waybill_nodejs_eventloop_lag_seconds \d/)
    expect(await figures(second.metricsPort)).to.match(/waybill_worker_active_transfers \d/)
    await second.stop()
  })
})

function scopesOf(token: Secret): string[] {
  const [, claims = ''] = token.reveal().split('.')
  const { scope } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { scope: string }
  return scope.split(' ')
}
