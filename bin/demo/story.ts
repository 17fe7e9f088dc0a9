import { join } from 'node:path'
import type { LocalFile } from '../../cli/local-files.ts'
import { bytesText } from '../../cli/output.ts'
import { pages } from '../../cli/pages.ts'
import { uploadFiles } from '../../cli/upload.ts'
import { followRule, ProgressLine, progressText } from '../../cli/watch.ts'
import type { Sandbox } from '../../sandbox/main.ts'
import type { Client } from '../../shared/contract/client.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Terminal } from '../../shared/runtime/terminal.ts'
import type { StorageClient } from '../../shared/storage/types.ts'
import type { Play } from '../playing.ts'
import { compareOnDisk, makeFiles } from './files.ts'

export const DATASETS = ['run1', 'run2', 'run3', 'run4']
const SCOPE = 'demo'
const CONTAINER = `${SCOPE}:all-runs`
const ACCOUNT = 'manager'
const COPIES = 2

export interface StoryOptions {
  readonly sandbox: Sandbox
  /** What is played, by storage. */
  readonly plays: ReadonlyMap<string, Play>
  readonly client: Client
  readonly storage: StorageClient
  readonly clock: Clock
  readonly terminal: Terminal
  /** How many files in all. */
  readonly files: number
}

/** What came of it. */
export interface Summary {
  readonly files: number
  readonly replicas: number
  /** Of all replicas. */
  readonly bytes: number
  /** Undefined: some may have been there from before. */
  readonly seconds?: number
  readonly tokens: { readonly minted: number; readonly exchanged: number; readonly refreshed: number }
  readonly grants: readonly { rse: string; purpose: string; audience: string; scopes: readonly string[] }[]
}

/** What the demo shows: files at one storage, a rule, and their copies at the two others. Throws when a copy is not right. */
export async function tellStory(options: StoryOptions): Promise<Summary> {
  const { client, clock, terminal, sandbox } = options
  const say = (text: string): void => terminal.out(`${text}\n`)
  await prepareInstallation(options)
  const [first, ...others] = sandbox.storages
  if (first === undefined) throw new WaybillError('DEMO_FAILED', 'the sandbox has no storages')
  const files = await uploadDatasets(options, first.name)
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
  say(`${files.length} files (${bytesText(bytes)}) in ${DATASETS.length} datasets lie at ${first.name}`)

  say(`A rule: ${COPIES} copies of ${CONTAINER} at storages with tier=2`)
  const began = clock.monotonic()
  const { id, isNew } = await addRule(client)
  const line = new ProgressLine(terminal, clock)
  const read = () => client.getRule({ params: { id } })
  const rule = await followRule({ read, clock, onProgress: at => line.show(progressText(at)) }).finally(() =>
    line.end(),
  )
  const seconds = (clock.monotonic() - began) / 1000
  if (rule.state !== 'OK') {
    const why = rule.error ?? rule.problems?.[0]?.message ?? 'see waybill transfer list'
    throw new WaybillError('DEMO_FAILED', `the rule is ${rule.state}: ${why}`)
  }
  const wrong = await compareOnDisk(
    files,
    others.map(({ directory }) => directory),
  )
  if (wrong.length > 0) throw new WaybillError('DEMO_FAILED', `on the disks of the storages:\n  ${wrong.join('\n  ')}`)
  const moved = bytes * COPIES
  const pace = isNew
    ? `in ${seconds.toFixed(1)} s, ${bytesText(moved / seconds)}/s`
    : 'in all, some or all of them from before'
  say(`Done: ${files.length * COPIES} replicas (${bytesText(moved)}) ${pace}; every adler32 was compared on disk`)
  const replicas = files.length * COPIES
  return {
    files: files.length,
    replicas,
    bytes: moved,
    ...(isNew ? { seconds } : {}),
    ...(await tellTokens(client, say)),
  }
}

async function prepareInstallation({ client, sandbox, plays }: StoryOptions): Promise<void> {
  await unlessThere('ACCOUNT_EXISTS', client.addAccount({ body: { name: ACCOUNT } }))
  const subject = sandbox.clients.manager.id
  await client.addIdentity({ body: { issuer: sandbox.issuer, subject, account: ACCOUNT } })
  for (const [index, storage] of sandbox.storages.entries()) {
    const { name, url, audience, basePath } = storage
    const attributes = { tier: index === 0 ? 1 : 2 }
    const prefix = `${basePath}/${SCOPE}`
    const body = { name, prefix, basePath, audience, attributes, protocols: [{ url }] }
    await unlessThere('RSE_EXISTS', client.addRse({ body }))
    // Also of one from before, which was something else then.
    const params = { rse: name }
    const { tape, behaviour } = plays.get(name) ?? {}
    await client.updateRse({ params, body: { tape: tape !== undefined } })
    await client.addProtocol({ params, body: { url, macaroons: behaviour?.macaroons === true } })
  }
  for (const { name: source } of sandbox.storages) {
    for (const { name: destination } of sandbox.storages) {
      if (source !== destination) await client.setDistance({ params: { source, destination }, body: { distance: 1 } })
    }
  }
}

async function uploadDatasets(options: StoryOptions, rse: string): Promise<LocalFile[]> {
  const { client, storage, clock, terminal, sandbox } = options
  const all: LocalFile[] = []
  const line = new ProgressLine(terminal, clock)
  for (const [index, dataset] of DATASETS.entries()) {
    const count = Math.floor((options.files + index) / DATASETS.length)
    const files = await makeFiles(join(sandbox.directory, 'files', dataset), dataset, count)
    await uploadFiles({ client, storage, clock, rse, dataset: `${SCOPE}:${dataset}`, files, width: 8 })
    all.push(...files)
    line.show(`uploading: ${all.length} of ${options.files} files`)
  }
  line.end()
  await client.addDids({ body: { dids: [{ did: CONTAINER, type: 'CONTAINER' }] } })
  const dids = DATASETS.map(dataset => `${SCOPE}:${dataset}`)
  await client.attach({ params: { scope: SCOPE, name: 'all-runs' }, body: { dids } })
  return all
}

/** In a directory that was used before it is the rule from then. */
async function addRule(client: Client): Promise<{ id: number; isNew: boolean }> {
  const body = { dids: [CONTAINER], copies: COPIES, expression: 'tier=2', comment: 'waybill demo' }
  const added = await unlessThere('RULE_EXISTS', client.addRules({ body }))
  const { items } = added ?? (await client.listRules({ query: { did: CONTAINER } }))
  const [rule] = items
  if (rule === undefined) throw new WaybillError('DEMO_FAILED', 'the rule was not made')
  return { id: rule.id, isNew: added !== undefined }
}

async function tellTokens(client: Client, say: (text: string) => void): Promise<Pick<Summary, 'tokens' | 'grants'>> {
  const { tokenRequests: tokens } = await client.status()
  const { minted, exchanged, refreshed } = tokens
  const told = []
  say(
    `Tokens: ${minted} minted, ${exchanged} exchanged, ${refreshed} refreshed. Each was good for this and nothing else:`,
  )
  for await (const grants of pages(query => client.listGrants({ query }))) {
    for (const { rse, purpose, audience, scopes } of grants) {
      say(`  ${rse} ${purpose.padEnd(8)} ${audience}  ${scopes.join(' ')}`)
      told.push({ rse, purpose, audience, scopes })
    }
  }
  return { tokens, grants: told }
}

/** The answer; `undefined` when the server says that it is there already. */
async function unlessThere<T>(code: string, call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    if (error instanceof WaybillError && error.code === code) return undefined
    throw error
  }
}
