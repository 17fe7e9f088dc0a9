import { expect } from 'chai'
import type { Client } from '../../shared/contract/client.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { runCommand } from '../house/command.ts'
import { AUDIENCE, type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'
import { uploadFiles } from '../house/upload.ts'

const FILES = 4
const FILE_BYTES = 30_000

describe('draining a worker', () => {
  let house: House

  before(async () => {
    house = await startHouse({
      // Each copy takes three seconds.
      storages: { 'SITE-B': { behaviour: { bytesPerSecond: 10_000 } } },
      server: sandbox => ({
        workers: [sandbox.clients.worker, sandbox.clients.server].map(({ id }) => ({
          issuer: sandbox.issuer,
          client: id,
        })),
      }),
    })
    await house.addStorages()
  })
  after(() => house.stop())

  async function addRule(name: string): Promise<number> {
    const content = Buffer.alloc(FILE_BYTES, name)
    const files = Array.from({ length: FILES }, (_, i) => ({ did: `exp:${name}.${i}`, content }))
    await uploadFiles(house, 'SITE-A', `exp:${name}`, files)
    const { items } = await house.client.addRules({ body: { dids: [`exp:${name}`], copies: 1, expression: 'SITE-B' } })
    return items[0]?.id ?? 0
  }
  const ruleIs = (id: number, state: string) =>
    until(
      () => house.client.getRule({ params: { id } }),
      found => found.state === state,
    )
  const statesOf = async (id: number): Promise<string[]> => {
    const { items } = await house.client.listRuleTransfers({ params: { id } })
    return [...new Set(items.map(item => item.state))]
  }
  const worker = async (name: string) => (await house.client.listWorkers()).items.find(item => item.name === name)

  const waybill = (line: string) => runCommand(house, line)

  it('lets it finish what it has, gives it nothing more over its sessions, and gives all to others', async () => {
    let one = await house.startWorker('one')
    const first = await addRule('first')
    await until(
      () => worker('one'),
      found => found?.active === FILES,
    )
    const { status, out, err } = await waybill('worker drain one --wait --timeout 30s')
    expect([status, out]).to.deep.equal([0, 'one is drained\n'])
    expect(err).to.contain(`one is draining: ${FILES} transfers to finish\n`).and.to.contain('one is drained\n')
    await ruleIs(first, 'OK')

    const second = await addRule('second')
    await until(
      () => statesOf(second),
      states => states.join() === 'QUEUED',
    )
    await one.stop()
    one = await house.startWorker('one')
    expect(
      await until(
        () => worker('one'),
        found => found?.alive === true,
      ),
    ).to.include({ state: 'drained', active: 0 })
    // Longer than a claim looks again.
    await systemClock.sleep(2_000)
    expect(await statesOf(second)).to.deep.equal(['QUEUED'])
    expect((await waybill('worker list')).out).to.match(
      /^NAME .*\none +waybill-worker +drained +\d+ s +0 +0 +\d+ s +\d/,
    )

    const two = await house.startWorker('two')
    await ruleIs(second, 'OK')
    await two.stop()

    const third = await addRule('third')
    const resumed = await waybill('worker resume one')
    expect(resumed).to.deep.equal({ status: 0, out: 'one gets work\n', err: '' })
    await ruleIs(third, 'OK')
    await one.stop()
  })

  it('tells a worker that waits in a claim at once, and gives it work when it is resumed', async () => {
    const pool: Client = house.clientFor(() => house.token('worker', AUDIENCE, ['wlcg']))
    const { publicJwk } = await newRecipient()
    const { session } = await pool.openSession({ body: { worker: 'waits', version: '9', key: publicJwk } })
    const claim = async () => {
      const began = systemClock.monotonic()
      const claimed = await pool.claim({ body: { session, limit: 10, waitSeconds: 20 } })
      return { ...claimed, ms: systemClock.monotonic() - began }
    }
    const named = { params: { worker: 'waits' } }
    const waiting = claim()
    await systemClock.sleep(300)
    expect(await house.client.drainWorker({ ...named, body: {} })).to.include({
      state: 'drained',
      alive: true,
      version: '9',
    })
    const heard = await waiting
    expect(heard).to.deep.include({ transfers: [], more: false, renewals: [], imports: [], drained: true })
    expect(heard.ms).to.be.below(1_000)

    const next = claim()
    await addRule('fourth')
    await systemClock.sleep(300)
    expect(await house.client.resumeWorker({ ...named, body: {} })).to.include({ state: 'working' })
    const again = await next
    expect(again.drained).to.equal(false)
    expect(again.ms).to.be.below(5_000)
    // The tokens of what was queued meanwhile want to be exchanged: that is work too, and it had none of it before.
    const { renewals } = again.renewals.length > 0 ? again : await claim()
    expect(renewals).to.have.length(2)
    await pool.closeSession({ params: { id: session } })
  })

  it('is for admins, of one worker that there is', async () => {
    const pools = (['worker', 'server'] as const).map(name =>
      house.clientFor(() => house.token(name, AUDIENCE, ['wlcg'])),
    )
    for (const pool of pools) {
      const { publicJwk } = await newRecipient()
      await pool.openSession({ body: { worker: 'twin', key: publicJwk } })
    }
    const refusal = (call: Promise<unknown>): Promise<unknown> =>
      call.then(
        answer => answer,
        (error: { status: number; code: string; field?: string }) => [error.status, error.code, error.field],
      )
    const named = (name: string, body = {}) => ({ params: { worker: name }, body })
    expect(await refusal(house.client.drainWorker(named('nobody')))).to.deep.equal([404, 'WORKER_UNKNOWN', 'worker'])
    expect(await refusal(house.client.drainWorker(named('twin')))).to.deep.equal([409, 'WORKER_AMBIGUOUS', 'client'])
    for (const route of ['drainWorker', 'resumeWorker'] as const) {
      expect(await refusal(pools[0]?.[route](named('twin')) ?? Promise.resolve())).to.deep.equal([
        403,
        'FORBIDDEN',
        undefined,
      ])
    }
    const { id } = house.sandbox.clients.server
    expect(await house.client.drainWorker(named('twin', { client: id }))).to.include({ client: id, state: 'drained' })
    const twins = (await house.client.listWorkers()).items.filter(({ name }) => name === 'twin')
    expect(twins.map(({ state }) => state)).to.have.members(['drained', 'working'])
    expect((await waybill('worker drain nobody --wait')).status).to.equal(1)
    expect((await waybill('worker drain twin --timeout 3')).status).to.equal(2)
  })
})
