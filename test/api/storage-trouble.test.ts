import { mkdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { expect } from 'chai'
import type { Behaviour, RunningStorage } from '../../sandbox/main.ts'
import { WELL_BEHAVED } from '../../sandbox/storage/behaviour.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import {
  askCopy,
  didOf,
  onDisk,
  placeDataset,
  someFiles,
  transfersOf,
  untilRule,
  wrongFiles,
} from '../house/dataset.ts'
import { AUDIENCE, type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'

const files = someFiles(1)

/** One attempt in short: `failed SOURCE TRANSFER SOURCE_MISSING`, or `done pull`. */
type Attempt = Awaited<ReturnType<typeof transfersOf>>[number]['attemptList'][number]
const inShort = ({ outcome, mode, error }: Attempt): string =>
  error === undefined ? `${outcome} ${mode ?? ''}`.trim() : `${outcome} ${error.scope} ${error.phase} ${error.code}`

function storageOf(house: House, name: string): RunningStorage {
  const found = house.storages.get(name)
  if (found === undefined) throw new Error(`no storage ${name}`)
  return found
}

async function startedHouse(): Promise<House> {
  const house = await startHouse({
    server: { retry: { maxAttempts: 2, soonSeconds: 0.1, laterSeconds: 0.1, maxDelaySeconds: 0.1 } },
    worker: { settleSeconds: 0.3 },
  })
  await house.addStorages()
  await house.startWorker()
  return house
}

describe('storages in trouble', () => {
  let house: House
  let half: ReturnType<typeof leaveHalf>

  before(async () => {
    // It mostly waits: begun first, looked at last.
    half = leaveHalf()
    house = await startedHouse()
  })
  after(async () => {
    await house.stop()
    await (await half).house.stop()
  })
  afterEach(() => {
    for (const storage of house.storages.values()) Object.assign(storage.behaviour, WELL_BEHAVED)
  })

  const storage = (name: string): RunningStorage => storageOf(house, name)
  const behave = (name: string, behaviour: Partial<Behaviour>): void => {
    Object.assign(storage(name).behaviour, behaviour)
  }
  const got = (name: string, verb: string): number => storage(name).requests.get(verb) ?? 0
  const isAbsent = async (dataset: string, rse = 'SITE-B'): Promise<boolean> =>
    (await stat(onDisk(house, rse, dataset, 'f0')).catch(() => undefined)) === undefined

  async function lay(rse: string, dataset: string, content: string): Promise<void> {
    const path = onDisk(house, rse, dataset, 'f0')
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, content)
  }

  /** The one transfer of a rule that brings a dataset of one file from SITE-A to SITE-B. */
  async function bring(dataset: string, state: 'OK' | 'STUCK', to = 'SITE-B') {
    const rule = await askCopy(house, dataset, to)
    const found = await untilRule(house, rule, state)
    const [transfer] = await transfersOf(house, rule)
    if (transfer === undefined) throw new Error(`no transfer for ${dataset}`)
    return { rule: found, transfer, attempts: transfer.attemptList.map(inShort) }
  }

  /** The one transfer of a rule, once there is one, and why it waits. */
  async function waitingOf(rule: number) {
    const [transfer] = await transfersOf(house, rule)
    return transfer && { transfer, why: await house.client.getTransferWhy({ params: { id: transfer.id } }) }
  }

  /** What goes wrong, how, the attempts that are recorded, and the storage's words. */
  const failing: [string, (dataset: string) => unknown, string[], RegExp][] = [
    [
      'the destination forbids the copy',
      // To the first COPY under a grant it may be the token: there is another one.
      () => storage('SITE-B').refuse({ verb: 'COPY', status: 403, times: 2 }),
      ['failed DESTINATION PREPARATION PERMISSION_DENIED'],
      /^COPY answered 403: the storage was told to refuse$/,
    ],
    [
      'the source forbids reading',
      () => storage('SITE-A').refuse({ verb: 'GET', status: 403, times: 1 }),
      ['failed SOURCE TRANSFER PERMISSION_DENIED'],
      /Remote side failed with status code 403.*the storage was told to refuse/,
    ],
    [
      'the source has lost the file',
      dataset => rm(onDisk(house, 'SITE-A', dataset, 'f0')),
      ['failed SOURCE TRANSFER SOURCE_MISSING'],
      /status code 404.*no such file/,
    ],
    [
      'the source has other bytes than the catalogue says',
      dataset => lay('SITE-A', dataset, 'x'.repeat(100)),
      ['failed SOURCE PREPARATION SOURCE_CORRUPT'],
      /adler32 [0-9a-f]{8}, .*[0-9a-f]{8}$/,
    ],
    [
      'the source has fewer bytes than the catalogue says',
      dataset => truncate(onDisk(house, 'SITE-A', dataset, 'f0'), 99),
      ['failed SOURCE PREPARATION SOURCE_CORRUPT'],
      /99 bytes.*100/,
    ],
    [
      'the destination answers nonsense',
      () => behave('SITE-B', { nonsense: true }),
      Array(2).fill(['unknown TRANSFER TRANSFER PROTOCOL_VIOLATION', 'absent']).flat(),
      /^COPY answered neither markers nor an outcome: Welcome to the portal$/,
    ],
    [
      'the destination redirects to a stranger',
      () => behave('SITE-B', { redirect: { verbs: ['COPY'], origin: 'https://elsewhere.example.org' } }),
      ['failed DESTINATION PREPARATION REDIRECT_REFUSED'],
      /^a redirect to elsewhere\.example\.org, which is not among the storage's redirect hosts$/,
    ],
    [
      'the destination redirects to an address of its own network',
      () => behave('SITE-B', { redirect: { verbs: ['HEAD'], origin: 'https://127.0.0.1:9' } }),
      ['failed DESTINATION PREPARATION REDIRECT_REFUSED'],
      /^a redirect to the internal address 127\.0\.0\.1$/,
    ],
    [
      'the source redirects to where the token could be read',
      () => behave('SITE-A', { redirect: { verbs: ['HEAD'], origin: 'http://localhost:9' } }),
      ['failed SOURCE PREPARATION REDIRECT_REFUSED'],
      /^a redirect from https to http at localhost would show the token$/,
    ],
  ]
  for (const [i, [what, cause, attempts, words]] of failing.entries()) {
    it(`${what}: recorded, then given up, and the rule says why`, async () => {
      const dataset = `failing${i}`
      await placeDataset(house, 'SITE-A', dataset, files)
      await cause(dataset)
      const found = await bring(dataset, 'STUCK')
      expect(found.attempts).to.deep.equal(attempts)
      const { error } = found.transfer.attemptList.findLast(attempt => attempt.error !== undefined) ?? {}
      expect(error?.message).to.match(words)
      expect(found.transfer).to.include({ state: 'FAILED', reason: `${error?.code}: ${error?.message}` })
      expect(found.rule.problems).to.deep.equal([
        { did: didOf(dataset, 'f0'), rse: 'SITE-B', code: error?.code, message: error?.message },
      ])
      const { items } = await house.client.listReplicas({ query: { did: didOf(dataset, 'f0'), rse: 'SITE-B' } })
      expect(items.map(({ state }) => state)).to.deep.equal(['UNAVAILABLE'])
      expect(await isAbsent(dataset)).to.equal(true)
    })
  }

  it('a wrong copy is removed with a token for that alone, and under a permit', async () => {
    const dataset = 'wrong-copy'
    await placeDataset(house, 'SITE-A', dataset, files)
    await lay('SITE-A', dataset, 'y'.repeat(100))
    const before = got('SITE-B', 'DELETE')
    await bring(dataset, 'STUCK')
    expect(got('SITE-B', 'DELETE') - before).to.equal(1)
    const grants = (await house.client.listGrants()).items.filter(({ scopes }) =>
      scopes.some(scope => scope.endsWith(`/${dataset}`)),
    )
    expect(grants.map(({ purpose, scopes }) => [purpose, ...scopes])).to.deep.equal([
      ['read', 'storage.read:/exp/exp/wrong-copy'],
      ['write', 'storage.create:/exp/exp/wrong-copy', 'storage.read:/exp/exp/wrong-copy'],
      ['clean-up', 'storage.modify:/exp/exp/wrong-copy', 'storage.read:/exp/exp/wrong-copy'],
    ])
    const pool = house.clientFor(() => house.token('worker', AUDIENCE, ['wlcg']))
    const { publicJwk } = await newRecipient()
    const { session } = await pool.openSession({ body: { worker: 'w', key: publicJwk } })
    const codes = grants.map(({ id }) =>
      pool.acquireToken({ params: { id }, body: { session, lifeSeconds: 60 } }).then(
        ({ kind }) => kind,
        error => error.code,
      ),
    )
    expect(await Promise.all(codes), 'without a permit').to.deep.equal(['token', 'token', 'PERMIT_MISSING'])
  })

  it('the right file is there already: it is taken, and nothing is copied', async () => {
    const [file] = files
    await placeDataset(house, 'SITE-A', 'there', files)
    await lay('SITE-B', 'there', file?.content.toString() ?? '')
    const written = (await stat(onDisk(house, 'SITE-B', 'there', 'f0'))).mtimeMs
    const reads = got('SITE-A', 'GET')
    const { attempts } = await bring('there', 'OK')
    expect(attempts).to.deep.equal(['done pull'])
    expect((await stat(onDisk(house, 'SITE-B', 'there', 'f0'))).mtimeMs).to.equal(written)
    expect(got('SITE-A', 'GET')).to.equal(reads)
  })

  it('another file is there: it is neither overwritten nor removed, and the rule says so', async () => {
    await placeDataset(house, 'SITE-A', 'other', files)
    await lay('SITE-B', 'other', 'not what was asked for')
    const before = got('SITE-B', 'DELETE')
    const { attempts } = await bring('other', 'STUCK')
    expect(attempts).to.deep.equal(['failed DESTINATION PREPARATION DESTINATION_EXISTS'])
    expect(got('SITE-B', 'DELETE')).to.equal(before)
    expect(await readFile(onDisk(house, 'SITE-B', 'other', 'f0'), 'utf8')).to.equal('not what was asked for')
  })

  it('another file is there, and the storage says 500: it stays too', async () => {
    await placeDataset(house, 'SITE-A', 'other-500', files)
    await lay('SITE-B', 'other-500', 'not what was asked for')
    const before = got('SITE-B', 'DELETE')
    storage('SITE-B').refuse({ verb: 'COPY', status: 500, times: 1 })
    const { attempts } = await bring('other-500', 'STUCK')
    expect(attempts).to.deep.equal(['failed DESTINATION PREPARATION DESTINATION_EXISTS'])
    expect(got('SITE-B', 'DELETE')).to.equal(before)
    expect(await readFile(onDisk(house, 'SITE-B', 'other-500', 'f0'), 'utf8')).to.equal('not what was asked for')
  })

  it('a storage that is busy is left alone for as long as it asks', async () => {
    await placeDataset(house, 'SITE-A', 'busy', files)
    storage('SITE-B').refuse({ verb: 'COPY', status: 503, times: 1, retryAfterSeconds: 2 })
    const { attempts, transfer } = await bring('busy', 'OK')
    expect(attempts).to.deep.equal(['failed DESTINATION PREPARATION STORAGE_BUSY', 'done pull'])
    const [first, second] = transfer.attemptList
    expect((second?.startedAt ?? 0) - (first?.endedAt ?? 0)).to.be.at.least(2_000)
  })

  it('one token that a storage refuses costs no attempt', async () => {
    await placeDataset(house, 'SITE-A', 'one-401', files)
    storage('SITE-B').refuse({ verb: 'HEAD', status: 401, times: 1 })
    expect((await bring('one-401', 'OK')).attempts).to.deep.equal(['done pull'])
  })

  it('a copy that ends without an outcome is looked at, and not sent again when the file is right', async () => {
    await placeDataset(house, 'SITE-A', 'withheld', files)
    behave('SITE-B', { withholdOutcome: true, lastWords: 'the mover was killed' })
    const before = got('SITE-B', 'COPY')
    const { attempts, transfer } = await bring('withheld', 'OK')
    expect(attempts).to.deep.equal(['unknown TRANSFER TRANSFER OUTCOME_UNKNOWN', 'done'])
    expect(transfer.attemptList[0]?.error?.message).to.match(/; the storage said: the mover was killed$/)
    expect(got('SITE-B', 'COPY') - before).to.equal(1)
    expect(await wrongFiles(house, 'SITE-B', 'withheld', files)).to.deep.equal([])
  })

  it('a storage that cannot pull is pushed to, one that neither pulls nor is pushed to is streamed to', async () => {
    await placeDataset(house, 'SITE-B', 'pushed', files)
    behave('SITE-C', { pull: false })
    expect((await bring('pushed', 'OK', 'SITE-C')).attempts).to.deep.equal(['done push'])
    await placeDataset(house, 'SITE-C', 'streamed', files)
    behave('SITE-C', { push: false })
    behave('SITE-A', { pull: false })
    expect((await bring('streamed', 'OK', 'SITE-A')).attempts).to.deep.equal(['done stream'])
    expect(await wrongFiles(house, 'SITE-C', 'pushed', files)).to.deep.equal([])
    expect(await wrongFiles(house, 'SITE-A', 'streamed', files)).to.deep.equal([])
  })

  it('a file that one source has lost comes from another', async () => {
    await placeDataset(house, 'SITE-A', 'two-sources', files)
    await placeDataset(house, 'SITE-C', 'two-sources', files)
    await rm(onDisk(house, 'SITE-A', 'two-sources', 'f0'))
    const { attempts, transfer } = await bring('two-sources', 'OK')
    expect(attempts).to.deep.equal(['failed SOURCE TRANSFER SOURCE_MISSING', 'done pull'])
    expect(transfer.attemptList.map(({ source }) => source)).to.deep.equal(['SITE-A', 'SITE-C'])
  })

  it('a COPY that is refused with a token that the storage believes otherwise is sent twice, and then the grant is held', async () => {
    await placeDataset(house, 'SITE-A', 'refused', files)
    storage('SITE-B').refuse({ verb: 'COPY', status: 401, times: 1000 })
    const before = got('SITE-B', 'COPY')
    const rule = await askCopy(house, 'refused', 'SITE-B')
    const found = await until(
      () => waitingOf(rule),
      one => one?.why.code === 'TOKEN_REFUSED',
    )
    expect(found?.why.sentence).to.match(/COPY answered 401/)
    expect(got('SITE-B', 'COPY') - before).to.equal(2)
    // It may have been claimed once more before the server heard of it, and was handed back then.
    expect(found?.transfer).to.include({ attempts: 1 })
    expect(found?.transfer.attemptList.map(inShort)[0]).to.equal('failed TOKEN PREPARATION TOKEN_REFUSED')
  })

  it('a destination that is full costs no attempt, and gets nothing more for a time', async () => {
    await placeDataset(house, 'SITE-A', 'full', files)
    storage('SITE-C').refuse({ verb: 'COPY', status: 507, times: 1000 })
    const before = got('SITE-C', 'COPY')
    const rule = await askCopy(house, 'full', 'SITE-C')
    await until(
      () => waitingOf(rule),
      one => (one?.transfer.attemptList.length ?? 0) > 0,
    )
    // A transfer and its attempts are two reads: the attempt may have ended between them.
    const found = await waitingOf(rule)
    await placeDataset(house, 'SITE-A', 'full-next', files)
    const next = await askCopy(house, 'full-next', 'SITE-C')
    await until(
      () => waitingOf(next),
      one => one?.why.code === 'STORAGE_FULL',
    )
    expect(found?.transfer).to.include({ state: 'WAITING', attempts: 0 })
    expect(found?.transfer.attemptList.map(inShort)).to.deep.equal(['failed DESTINATION PREPARATION DESTINATION_FULL'])
    expect(got('SITE-C', 'COPY') - before).to.equal(1)
  })

  it('what a copy without an outcome left half done is removed before the next one', async () => {
    const { house, rule } = await half
    await untilRule(house, rule, 'OK')
    const [transfer] = await transfersOf(house, rule)
    expect(transfer?.attemptList.map(inShort)).to.deep.equal([
      'unknown TRANSFER TRANSFER OUTCOME_UNKNOWN',
      'failed TRANSFER TRANSFER OUTCOME_UNKNOWN',
      'done pull',
    ])
    expect(storageOf(house, 'SITE-B').requests.get('COPY')).to.equal(2)
    expect(await wrongFiles(house, 'SITE-B', 'half', files)).to.deep.equal([])
  })

  /** A copy of which the first part stays, and whose end nobody hears. */
  async function leaveHalf() {
    const house = await startedHouse()
    const destination = storageOf(house, 'SITE-B').behaviour
    Object.assign(destination, { withholdOutcome: true, debris: true })
    storageOf(house, 'SITE-A').refuse({ verb: 'GET', status: 500, times: 1 })
    await placeDataset(house, 'SITE-A', 'half', files)
    const rule = await askCopy(house, 'half', 'SITE-B')
    await until(
      async () => storageOf(house, 'SITE-B').answers.get(202) ?? 0,
      copies => copies === 1,
    )
    Object.assign(destination, WELL_BEHAVED)
    return { house, rule }
  }
})
