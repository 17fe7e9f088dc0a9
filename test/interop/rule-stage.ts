import { join } from 'node:path'
import type { z } from 'zod'
import { replicaPath } from '../../server/storages/paths.ts'
import type { protocol } from '../../shared/contract/routes/storages.ts'
import { parseDid } from '../../shared/domain/names.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { type House, type HouseOptions, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'
import { type PlannedFile, type StoredFile, writePlanned } from './file-set.ts'
import { startXrootd, type Xrootd } from './xrootd.ts'

export type ProtocolTraits = Omit<z.input<typeof protocol>, 'url'>

/** How the files of one rule were moved: `pull done` to the number of attempts, and how long it took. */
export interface Replication {
  readonly rule: number
  readonly seconds: number
  readonly attempts: ReadonlyMap<string, number>
}

/** The whole of Waybill with its embedded storages, and two real XRootD servers that trust its issuer. */
export interface RuleStage {
  readonly house: House
  readonly near: Xrootd
  readonly far: Xrootd
  /**
   * A storage in a directory of its own at this server, and where that is on disk. One XRootD can be several storages; an
   * embedded storage is added under its own name.
   */
  addRse(name: string, server: Xrootd | 'embedded', traits?: ProtocolTraits): Promise<string>
  link(source: string, destination: string): Promise<void>
  /** Writes files where the layout has them, as if they had always been there, and registers them. */
  place(rse: string, directory: string, files: readonly PlannedFile[]): Promise<void>
  /** Adds a rule for one copy and sees it through. Throws when it does not end OK in time. */
  replicate(did: string, destination: string, withinMs: number): Promise<Replication>
  /** What server, worker and sandbox logged as `warn` or `error`: nothing in a healthy system. */
  complaints(): string[]
  stop(): Promise<void>
}

export async function startRuleStage(options: HouseOptions = {}): Promise<RuleStage> {
  const house = await startHouse(options)
  const servers: Xrootd[] = []
  async function start(name: string): Promise<Xrootd> {
    const { authority, issuer } = house.sandbox
    const server = await startXrootd({ directory: join(house.directory, name), authority, issuer })
    servers.push(server)
    return server
  }
  async function stop(): Promise<void> {
    await Promise.all(servers.map(server => server.stop()))
    await house.stop()
  }
  try {
    const [near, far] = [await start('xrootd-near'), await start('xrootd-far')]
    await house.startWorker()
    return { house, near, far, stop, ...actionsIn(house) }
  } catch (error) {
    await stop()
    throw error
  }
}

function actionsIn({ client, sandbox, leaks }: House): Omit<RuleStage, 'house' | 'near' | 'far' | 'stop'> {
  return {
    async addRse(name, server, traits = {}) {
      const place = server === 'embedded' ? embedded(sandbox, name) : ofXrootd(server)
      const { url, audience, basePath, root, freshConnections } = place
      const own = name.toLowerCase()
      const protocols = [{ url, freshConnections, ...traits }]
      await client.addRse({ body: { name, prefix: `${basePath}/${own}`, basePath, audience, protocols } })
      return join(root, own)
    },
    async link(source, destination) {
      await client.setDistance({ params: { source, destination }, body: { optimize: false } })
    },
    async place(rse, directory, files) {
      const written = new Map<string, { did: string; bytes: number; adler32: string }[]>()
      for (const file of files) {
        const stored = await writePlanned(join(directory, pathOf(file)), file)
        written.set(file.dataset, [...(written.get(file.dataset) ?? []), { did: file.did, ...stored }])
      }
      for (const [dataset, entries] of written) {
        await client.registerReplicas({ body: { rse, dataset, files: entries } })
      }
    },
    async replicate(did, expression, withinMs) {
      const startedAt = systemClock.monotonic()
      const { items } = await client.addRules({ body: { dids: [did], copies: 1, expression } })
      const id = items[0]?.id ?? 0
      const rule = await until(
        () => client.getRule({ params: { id } }),
        found => found.state !== 'REPLICATING' && found.state !== 'INJECT',
        withinMs,
      )
      const seconds = (systemClock.monotonic() - startedAt) / 1000
      if (rule.state !== 'OK') throw new Error(`the rule ended ${rule.state}: ${JSON.stringify(rule)}`)
      return { rule: id, seconds, attempts: await countAttempts(client, id) }
    },
    complaints: () => leaks.seenAt('the logs').filter(line => /"level":[456]0/.test(line)),
  }
}

/** `root`: what the base path is on disk. */
function ofXrootd({ audience, dataDirectory }: Xrootd) {
  return { url: audience, audience, basePath: '/exp', root: dataDirectory, freshConnections: false }
}

function embedded({ storages }: House['sandbox'], name: string) {
  const found = storages.find(storage => storage.name === name)
  if (found === undefined) throw new Error(`the sandbox has no storage ${name}`)
  const { url, audience, basePath, directory } = found
  return { url, audience, basePath, root: join(directory, basePath), freshConnections: false }
}

/** Below the RSE's prefix. */
export function pathOf({ did, dataset }: Pick<PlannedFile, 'did' | 'dataset'>): string {
  const { directory, name } = replicaPath('dataset', parseDid(did), parseDid(dataset))
  return `${directory}/${name}`.slice(1)
}

async function countAttempts({ listRuleTransfers, getTransfer }: House['client'], rule: number) {
  const counts = new Map<string, number>()
  for (let cursor: string | undefined; ; ) {
    const page = await listRuleTransfers({
      params: { id: rule },
      query: { limit: 1000, ...(cursor === undefined ? {} : { cursor }) },
    })
    for (const { id } of page.items) {
      const { attemptList } = await getTransfer({ params: { id } })
      for (const { mode, outcome } of attemptList) {
        const what = `${mode ?? 'none'} ${outcome}`
        counts.set(what, (counts.get(what) ?? 0) + 1)
      }
    }
    if (page.next === undefined) return counts
    cursor = page.next
  }
}

/** One line for people: what came, and how quickly. */
export function rateOf({ seconds, attempts }: Replication, files: ReadonlyMap<string, StoredFile>): string {
  const megabytes = [...files.values()].reduce((sum, { bytes }) => sum + bytes, 0) / 1e6
  const tally = [...attempts].map(([what, count]) => `${what} ${count}`).join(', ')
  const rates = `${(files.size / seconds).toFixed(0)} files/s, ${(megabytes / seconds).toFixed(0)} MB/s`
  return `      ${files.size} files, ${megabytes.toFixed(0)} MB in ${seconds.toFixed(1)} s: ${rates}; attempts: ${tally}\n`
}
