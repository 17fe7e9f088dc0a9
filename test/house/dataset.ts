import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import type { House } from './house.ts'
import { until } from './until.ts'

export interface TestFile {
  readonly name: string
  readonly content: Buffer
}

/** Files `f0`, `f1`, ... of a dataset, no two alike. */
export function someFiles(count: number, bytes = 100): TestFile[] {
  return Array.from({ length: count }, (_, i) => ({ name: `f${i}`, content: Buffer.alloc(bytes, `file ${i};`) }))
}

/** Where the layout puts a file of a dataset in the scope `exp`, on the disk of an embedded storage. */
export function onDisk(house: Pick<House, 'sandbox'>, rse: string, dataset: string, name: string): string {
  const storage = house.sandbox.storages.find(candidate => candidate.name === rse)
  if (storage === undefined) throw new Error(`no storage ${rse}`)
  return join(storage.directory, 'data/exp/exp', dataset.replaceAll('/', '~'), name)
}

/** Puts files onto the disk of a storage, as a site does by its own means, and registers them. */
export async function placeDataset(
  house: Pick<House, 'sandbox' | 'client'>,
  rse: string,
  dataset: string,
  files: readonly TestFile[],
): Promise<void> {
  for (const { name, content } of files) {
    const path = onDisk(house, rse, dataset, name)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, content)
  }
  await house.client.registerReplicas({
    body: {
      rse,
      dataset: `exp:${dataset}`,
      files: files.map(({ name, content }) => ({
        did: didOf(dataset, name),
        bytes: content.length,
        adler32: adler32Hex(adler32(content)),
      })),
    },
  })
}

export function didOf(dataset: string, name: string): string {
  return `exp:${dataset}/${name}`
}

/** One copy of a dataset at a storage; the rule's number. */
export async function askCopy(house: Pick<House, 'client'>, dataset: string, rse: string): Promise<number> {
  const { items } = await house.client.addRules({ body: { dids: [`exp:${dataset}`], copies: 1, expression: rse } })
  const [rule] = items
  if (rule === undefined) throw new Error('no rule was made')
  return rule.id
}

export function untilRule(
  house: Pick<House, 'client'>,
  id: number,
  state: 'OK' | 'STUCK' | 'REPLICATING',
  withinMs?: number,
) {
  return until(
    () => house.client.getRule({ params: { id } }),
    rule => rule.state === state,
    withinMs,
  )
}

/** The transfers of a rule with all their attempts. */
export async function transfersOf(house: Pick<House, 'client'>, rule: number) {
  const { items } = await house.client.listRuleTransfers({ params: { id: rule }, query: { limit: 1000 } })
  return Promise.all(items.map(({ id }) => house.client.getTransfer({ params: { id } })))
}

/** Names of the files that are not on the disk of a storage as they should be. */
export async function wrongFiles(
  house: Pick<House, 'sandbox'>,
  rse: string,
  dataset: string,
  files: readonly TestFile[],
): Promise<string[]> {
  const judged = await Promise.all(
    files.map(async ({ name, content }) => {
      const found = await readFile(onDisk(house, rse, dataset, name)).catch(() => undefined)
      return found?.equals(content) === true ? [] : [name]
    }),
  )
  return judged.flat()
}
