import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { askCopy, placeDataset, someFiles, transfersOf, untilRule } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { Leaks } from '../house/leaks.ts'
import { until } from '../house/until.ts'
import { uploadFiles } from '../house/upload.ts'

const MINT = 'client_credentials'
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const REFRESH = 'refresh_token'

describe('the search for secrets', () => {
  const token = `${'a'.repeat(30)}.${'b'.repeat(200)}.c1d2e3f4g5h6i7j8k9l0${'m'.repeat(66)}`
  const guarded = (): Leaks => {
    const leaks = new Leaks()
    leaks.guard('the token', new Secret(token))
    leaks.guardClient('pool', new Secret('0123456789abcdef0123456789abcdef'))
    return leaks
  }
  const finds: [string, string, boolean][] = [
    ['a token', `{"msg":"sent Bearer ${token}"}`, true],
    ['a token cut off in its signature', token.slice(0, 260), true],
    ['a token without its signature', token.slice(0, 230), false],
    ['a client’s secret', 'secret=0123456789abcdef0123456789abcdef', true],
    ['Basic credentials', `Basic ${Buffer.from('pool:0123456789abcdef0123456789abcdef').toString('base64')}`, true],
    ['nothing else', '{"grant":17,"jti":"x"}', false],
  ]
  for (const [what, text, found] of finds) {
    it(`${found ? 'finds' : 'does not mind'} ${what}`, () => {
      const leaks = guarded()
      leaks.saw('the logs', text)
      expect(leaks.found()).to.have.length(found ? 1 : 0)
      expect(leaks.found().join()).not.to.contain('c1d2e3f4').and.not.to.contain('0123456789')
    })
  }

  it('finds a token among the bytes of a file', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'waybill-leaks-'))
    const leaks = guarded()
    await writeFile(join(directory, 'db'), Buffer.concat([Buffer.alloc(5000, 0xff), Buffer.from(token)]))
    await leaks.sawFile(join(directory, 'db'))
    await leaks.sawFile(join(directory, 'missing'))
    await rm(directory, { recursive: true })
    expect(leaks.found()).to.have.length(1)
  })
})

describe('no secret appears in logs, answers, metrics or the database', () => {
  let house: House

  before(async () => {
    house = await startHouse({
      issuer: { tokenLifetime: 4 },
      storages: { 'SITE-A': { behaviour: { bytesPerSecond: 40_000 } } },
      server: { retry: { maxAttempts: 2, soonSeconds: 0.1, laterSeconds: 0.1, maxDelaySeconds: 0.1 } },
    })
    await house.addStorages()
    await house.startWorker()
  })
  after(async () => {
    const { leaks } = house
    // It throws what it finds: this is the test.
    await house.stop()
    expect(leaks.guarded).to.be.above(30)
    for (const [place, sight] of [
      ['the logs', /"msg":"attempt ended"/],
      ['the answers of the API', /"kind":"(token|refresh)","generation":/],
      ['the metrics', /waybill_token_requests_total\{[^}]*refresh/],
      [house.database.place, /quoted-by-storage/],
    ] as const) {
      expect(
        leaks.seenAt(place).some(text => sight.test(text)),
        `${place} was looked at`,
      ).to.equal(true)
    }
  })

  /** All that people can see of it. */
  async function lookAround(): Promise<void> {
    const { client } = house
    await client.status()
    await client.listRules()
    await client.listGrants()
    for (const { id } of (await client.listTransfers({ query: { limit: 1000 } })).items) {
      await client.getTransfer({ params: { id } })
    }
  }

  it('while files are uploaded, imported, copied under renewed tokens, and downloaded', async () => {
    await uploadFiles(house, 'SITE-B', 'exp:up', [{ did: 'exp:u', content: Buffer.from('hello') }])
    await placeDataset(house, 'SITE-A', 'run1', someFiles(5, 40_000))
    house.issuer.misbehave({ kind: 'quote', grantType: REFRESH, times: 1 })
    await house.client.setDistance({
      params: { source: 'SITE-A', destination: 'SITE-B' },
      body: { maxActive: 1, optimize: false },
    })
    const rule = await askCopy(house, 'run1', 'SITE-B')
    // The files are known by other names: the import leaves them out, and says so.
    const job = { rse: 'SITE-A', path: '/data/exp/exp/run1', dataset: 'exp:imported' }
    const { id } = await house.client.addImport({ body: job })
    const ended = await until(
      () => house.client.getImport({ params: { id } }),
      found => found.state === 'DONE' || found.state === 'FAILED',
    )
    expect(ended).to.include({ state: 'DONE', files: 0, leftOut: 5 })
    const { items } = await house.client.listImportProblems({ params: { id }, query: {} })
    expect(items.map(({ code }) => code)).to.deep.equal(Array.from({ length: 5 }, () => 'PATH_TAKEN'))
    await untilRule(house, rule, 'OK')
    const { publicJwk } = await newRecipient()
    await house.client.planDownload({ body: { did: 'exp:run1', key: publicJwk } })
    const { tokenRequests } = await house.client.status()
    expect(tokenRequests.refreshed).to.be.above(0)
    await lookAround()
  })

  for (const status of [400, 401, 403, 500, 507]) {
    it(`when a storage refuses with ${status} and quotes the tokens`, async () => {
      const storage = house.storages.get('SITE-C')
      if (storage === undefined) throw new Error('no SITE-C')
      storage.behaviour.quoteTokens = true
      const dataset = `quoted-by-storage-${status}`
      await placeDataset(house, 'SITE-B', dataset, someFiles(1))
      storage.refuse({ verb: 'COPY', status, times: 2 })
      const rule = await askCopy(house, dataset, 'SITE-C')
      const transfers = await until(
        () => transfersOf(house, rule),
        ([transfer]) =>
          (transfer?.attemptList.some(({ error }) => error !== undefined) ?? false) || transfer?.state === 'DONE',
      )
      const [error] = transfers.flatMap(({ attemptList }) => attemptList.flatMap(attempt => attempt.error ?? []))
      expect(error?.message).to.contain('[secret]')
      await lookAround()
      storage.behaviour.quoteTokens = false
    })
  }

  for (const [step, grantType] of [
    ['mint', MINT],
    ['exchange', EXCHANGE],
  ] as const) {
    it(`when the issuer refuses a ${step} and quotes what it was sent`, async () => {
      const dataset = `quoted-by-issuer-${step}`
      await placeDataset(house, 'SITE-B', dataset, someFiles(1))
      house.issuer.misbehave({ kind: 'quote', grantType, storageOnly: true })
      const rule = await askCopy(house, dataset, 'SITE-C')
      await until(
        () => transfersOf(house, rule),
        ([transfer]) => /^TOKEN_REFUSED \(TOKEN_REFUSED: .*\[secret\]/.test(transfer?.reason ?? ''),
      )
      await lookAround()
      house.issuer.misbehave(undefined)
    })
  }

  it('when the server starts again', async () => {
    await house.restartServer()
    await lookAround()
  })
})
