import process from 'node:process'
import { createAgentClient } from '../shared/http/agent-client.ts'
import { createTrust } from '../shared/http/trust.ts'
import { systemClock } from '../shared/runtime/clock.ts'
import { silentLogger } from '../shared/runtime/logger.ts'
import { answerParent } from './processes.ts'

export interface BareRound {
  readonly caFile: string
  readonly concurrency: number
  /** A connection for each COPY. */
  readonly fresh: boolean
  readonly mode: 'pull' | 'push'
  /** Directories, with a slash at the end. */
  readonly source: string
  readonly destination: string
  readonly sourceToken: string
  readonly destinationToken: string
  readonly files: readonly { readonly name: string; readonly adler32: string }[]
}

export interface BareResult {
  readonly seconds: number
  readonly cpuMs: number
}

const TIMEOUTS = { connect: 10_000, headers: 10_000, total: 20_000 }
let clients: ReturnType<typeof connect> | undefined

/**
 * The ceiling: COPY and a verifying HEAD for each file, as the worker sends them, by the same HTTP client with the same pools, and
 * nothing else. No rules, no tokens to get, no queue, nothing kept: whatever fails ends it.
 */
answerParent(async (round: BareRound): Promise<BareResult> => {
  clients ??= connect(round)
  const { copyClient, client } = clients
  const files = round.files.values()
  const before = process.cpuUsage()
  const began = systemClock.monotonic()
  const lanes = Array.from({ length: round.concurrency }, async () => {
    for (const file of files) {
      await copy(round, copyClient, file.name)
      await verify(round, client, file)
    }
  })
  await Promise.all(lanes)
  const { user, system } = process.cpuUsage(before)
  return { seconds: (systemClock.monotonic() - began) / 1000, cpuMs: (user + system) / 1000 }
})

function connect({ caFile, concurrency, fresh }: BareRound) {
  const trust = createTrust({ path: caFile, defaultRoots: false, clock: systemClock, log: silentLogger })
  const pool = { trust, maxSockets: concurrency, clock: systemClock }
  return { copyClient: createAgentClient({ ...pool, fresh }), client: createAgentClient(pool) }
}

type Client = ReturnType<typeof connect>['client']

async function copy(round: BareRound, client: Client, name: string): Promise<void> {
  const { source, destination, sourceToken, destinationToken } = round
  const [active, passive] = round.mode === 'pull' ? [destinationToken, sourceToken] : [sourceToken, destinationToken]
  const answer = await client.request({
    method: 'COPY',
    url: round.mode === 'pull' ? destination + name : source + name,
    headers: {
      ...(round.mode === 'pull' ? { Source: source + name } : { Destination: destination + name }),
      Overwrite: 'F',
      Credential: 'none',
      RequireChecksumVerification: 'false',
      Authorization: `Bearer ${active}`,
      TransferHeaderAuthorization: `Bearer ${passive}`,
    },
    timeouts: TIMEOUTS,
  })
  const text = await answer.text(65_536)
  if (answer.status !== 201 || !/^success/m.test(text)) throw new Error(`COPY of ${name}: ${answer.status} ${text}`)
}

async function verify(round: BareRound, client: Client, file: BareRound['files'][number]): Promise<void> {
  const answer = await client.request({
    method: 'HEAD',
    url: round.destination + file.name,
    headers: { 'Want-Digest': 'adler32', Authorization: `Bearer ${round.destinationToken}` },
    timeouts: TIMEOUTS,
  })
  if (answer.status === 200 && answer.headers.digest === `adler32=${file.adler32}`) return
  throw new Error(`HEAD of ${file.name}: ${answer.status} ${answer.headers.digest}, expected ${file.adler32}`)
}
