import { systemClock } from '../shared/runtime/clock.ts'
import type { House } from '../test/house/house.ts'

export interface StoragePlace {
  readonly url: string
  readonly prefix: string
  readonly basePath?: string
  readonly audience?: string
  readonly freshConnections?: boolean
  readonly canPull?: boolean
}

/** A storage whose own limits hold nothing up. */
export async function addStorage({ client }: House, name: string, place: StoragePlace): Promise<void> {
  const { url, freshConnections, canPull, ...own } = place
  const traits = {
    ...(freshConnections === undefined ? {} : { freshConnections }),
    ...(canPull === undefined ? {} : { canPull }),
  }
  await client.addRse({
    body: { ...own, name, maxInbound: 100_000, maxOutbound: 100_000, protocols: [{ url, ...traits }] },
  })
}

const FILES_PER_REQUEST = 1_000

/** Files `exp:NAME/0/f0`, ... at a storage, in datasets `exp:NAME/0`, ... in the container `exp:NAME`. */
export async function registerFiles(
  { client }: House,
  rse: string,
  name: string,
  count: number,
  perDataset: number,
  describe: (i: number) => { bytes: number; adler32: string },
): Promise<void> {
  const datasets: string[] = []
  for (let first = 0; first < count; first += perDataset) {
    const dataset = `exp:${name}/${datasets.length}`
    datasets.push(dataset)
    const last = Math.min(count, first + perDataset)
    for (let from = first; from < last; from += FILES_PER_REQUEST) {
      const files = Array.from({ length: Math.min(last - from, FILES_PER_REQUEST) }, (_, i) => ({
        did: `${dataset}/f${from + i}`,
        ...describe(from + i),
      }))
      await client.registerReplicas({ body: { rse, dataset, files } })
    }
  }
  await client.addDids({ body: { dids: [{ did: `exp:${name}`, type: 'CONTAINER' }] } })
  await client.attach({ params: { scope: 'exp', name }, body: { dids: datasets } })
}

const PATIENCE_MS = 600_000
/** Whoever asks more often takes a part of the cores that are measured. */
const LOOK_MS = 500

/** Adds a rule for one copy of a container. Seconds from the request to the last verified file; throws when the rule ends otherwise. */
export async function moveFiles({ client }: House, name: string, destination: string): Promise<number> {
  const began = systemClock.now()
  const { items } = await client.addRules({ body: { dids: [`exp:${name}`], copies: 1, expression: destination } })
  const id = items[0]?.id ?? 0
  for (;;) {
    await systemClock.sleep(LOOK_MS)
    const { state, updatedAt, ...rule } = await client.getRule({ params: { id } })
    const seconds = (updatedAt - began) / 1000
    if (state === 'OK') return seconds
    if ((state !== 'REPLICATING' && state !== 'INJECT') || systemClock.now() - began > PATIENCE_MS)
      throw new Error(`the rule is ${state}: ${JSON.stringify(rule)}`)
  }
}
