import { createWriteStream } from 'node:fs'
import { rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import type { Client } from '../shared/contract/client.ts'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { parseDid } from '../shared/domain/names.ts'
import type { Secret } from '../shared/domain/secret.ts'
import { newRecipient } from '../shared/oidc/sealed-transport.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import { makeDirectory } from '../shared/runtime/directory.ts'
import { Meter } from '../shared/storage/meter.ts'
import type { Checksums, StorageClient } from '../shared/storage/types.ts'
import { addCommand, type Tools } from './command.ts'
import { inParallel } from './in-parallel.ts'
import { sumsOf } from './local-files.ts'
import { bytesText } from './output.ts'
import { pages } from './pages.ts'
import { usableUntil } from './usable-until.ts'
import { given, someNumber } from './values.ts'
import { ProgressLine } from './watch.ts'

type RemoteFile = Answer<Routes['planDownload']>['files'][number]

const WIDTH = 4

export interface DownloadOptions {
  readonly client: Pick<Client, 'planDownload' | 'getDid' | 'listContents'>
  readonly storage: Pick<StorageClient, 'get'>
  readonly did: string
  /** The directory on this machine. A file's name is its path below it. */
  readonly to: string
  readonly clock: Pick<Clock, 'now'>
  readonly rse?: string
  readonly width?: number
  /** Replaces files here that are others than those to come. */
  readonly overwrite?: boolean
  readonly onProgress?: (done: DownloadCounts) => void
}

export interface DownloadCounts {
  readonly files: number
  readonly bytes: number
  /** Files that were here already, with the right size and checksum. */
  readonly skipped: number
  /** Files that no storage has, or none that is open for reading. */
  readonly unavailable: readonly string[]
}

/**
 * Brings a file, a dataset or all datasets of a container here. What is here already is skipped, so it can be repeated; another
 * file of the same name is left alone, and ends it with DOWNLOAD_CONFLICT.
 */
export async function downloadFiles(options: DownloadOptions): Promise<DownloadCounts> {
  const counts = { files: 0, bytes: 0, skipped: 0, unavailable: [] as string[] }
  const count = (file: RemoteFile, skipped: boolean): void => {
    counts.files += 1
    counts.bytes += file.bytes
    counts.skipped += skipped ? 1 : 0
    options.onProgress?.(counts)
  }
  for await (const did of datasetsOf(options.client, options.did)) {
    let page: Plan | undefined
    do {
      page = await fetchPage(options, did, page?.next, count)
      counts.unavailable.push(...page.unavailable)
    } while (page.next !== undefined)
  }
  return counts
}

interface Access {
  readonly token: Secret
  /** On the wall clock, epoch milliseconds. */
  readonly usableUntil: number
}

interface Plan {
  readonly files: readonly RemoteFile[]
  readonly accesses: readonly Access[]
  readonly unavailable: readonly string[]
  readonly next?: string | undefined
}

/** The files of one page, which is planned anew when its tokens are about to end. The plan that was the last. */
async function fetchPage(
  options: DownloadOptions,
  did: string,
  cursor: string | undefined,
  onFetched: (file: RemoteFile, skipped: boolean) => void,
): Promise<Plan> {
  const { clock, to, width = WIDTH } = options
  const fetched = new Set<string>()
  for (;;) {
    const plan = await planDownload(options, did, cursor)
    const left = plan.files.filter(file => !fetched.has(file.did))
    let begun = 0
    await inParallel(left, width, async file => {
      const access = plan.accesses[file.access]
      if (access === undefined) throw new WaybillError('API_NONSENSE', `${file.did}: the plan has no token for it`)
      if (begun > 0 && clock.now() >= access.usableUntil) return
      begun += 1
      const skipped = await fetchFile(options, file, access.token, join(to, placeOf(file.did, options.did)))
      fetched.add(file.did)
      onFetched(file, skipped)
    })
    if (left.every(file => fetched.has(file.did))) return plan
  }
}

/** The DID itself, or the datasets that a container holds at any depth, each once. */
async function* datasetsOf(
  client: DownloadOptions['client'],
  top: string,
  seen: Set<string> = new Set(),
): AsyncGenerator<string> {
  if (seen.has(top)) return
  seen.add(top)
  const params = parseDid(top)
  const { type } = await client.getDid({ params })
  if (type !== 'CONTAINER') {
    yield top
    return
  }
  for await (const items of pages(query => client.listContents({ params, query }))) {
    for (const { did } of items) yield* datasetsOf(client, did, seen)
  }
}

async function planDownload(
  { client, clock, rse }: DownloadOptions,
  did: string,
  cursor: string | undefined,
): Promise<Plan> {
  const recipient = await newRecipient()
  const plan = await client.planDownload({ body: { did, ...given({ rse, cursor }), key: recipient.publicJwk } })
  const accesses = plan.accesses.map(async ({ token, context, expiresAt }) => ({
    token: await recipient.open(token, context),
    usableUntil: usableUntil(expiresAt, clock.now()),
  }))
  return { ...plan, accesses: await Promise.all(accesses) }
}

/** Names are safe as paths: no empty or dot segments. What is of another scope than was asked for lies below its scope. */
function placeOf(did: string, asked: string): string {
  const { scope, name } = parseDid(did)
  return scope === parseDid(asked).scope ? name : join(scope, name)
}

/** True when the file was here already. */
async function fetchFile(
  { storage, overwrite = false }: DownloadOptions,
  file: RemoteFile,
  token: Secret,
  path: string,
): Promise<boolean> {
  const here = await whatIsHere(path, file)
  if (here === 'the file') return true
  if (here === 'another' && !overwrite) {
    throw new WaybillError(
      'DOWNLOAD_CONFLICT',
      `${path} is here already, and is not ${file.did}: move it, choose another directory with --to, or replace it with --overwrite`,
    )
  }
  await makeDirectory(dirname(path))
  // No DID has a tilde: this is never the place of another file.
  const draft = `${path}~part`
  try {
    const { body } = await storage.get(file.url, token)
    const meter = new Meter(file.bytes, () => undefined)
    await pipeline(body, meter, createWriteStream(draft))
    if (!agrees(meter.checksums(), file)) {
      throw new WaybillError('DOWNLOAD_DAMAGED', `${file.did}: what came from ${file.url} has another checksum`)
    }
    await rename(draft, path)
  } catch (error) {
    await rm(draft, { force: true })
    throw error
  }
  return false
}

async function whatIsHere(path: string, file: RemoteFile): Promise<'nothing' | 'the file' | 'another'> {
  const status = await stat(path).catch(() => undefined)
  if (status === undefined) return 'nothing'
  if (!status.isFile() || status.size !== file.bytes) return 'another'
  return agrees(await sumsOf(path, file.bytes), file) ? 'the file' : 'another'
}

function agrees(found: Checksums, { adler32, md5 }: RemoteFile): boolean {
  return (adler32 === undefined || found.adler32 === adler32) && (md5 === undefined || found.md5 === md5)
}

export function addDownloadCommand(program: Command, tools: Tools): void {
  addCommand<{ to: string; rse?: string; overwrite?: boolean; parallel: number }>(program, tools, {
    usage: 'download <did>',
    summary: 'bring a file, a dataset or a container here; can be repeated',
    options: command =>
      command
        .option('--to <directory>', 'where to', '.')
        .option('--rse <name>', 'only from this storage')
        .option('--overwrite', 'replace files here that have the name of one to come, and are others')
        .option('--parallel <n>', 'files at a time', someNumber, WIDTH),
    examples: ['download exp:run1 --to data'],
    run: async ({ client, storage, output, terminal, clock }, [did = ''], { to, rse, overwrite = false, parallel }) => {
      const line = new ProgressLine(terminal, clock)
      const onProgress = (done: DownloadCounts): void => line.show(`${done.files} files, ${bytesText(done.bytes)}`)
      const download = { client, storage, clock, did, to, width: parallel, overwrite, onProgress, ...given({ rse }) }
      const counts = await downloadFiles(download).finally(() => line.end())
      output.done(
        `${counts.files} files (${bytesText(counts.bytes)}) are in ${to}; ${counts.skipped} were there before`,
        counts,
      )
      const [missing] = counts.unavailable
      if (missing !== undefined) {
        const others = counts.unavailable.length > 1 ? ` and ${counts.unavailable.length - 1} more` : ''
        throw new WaybillError('DOWNLOAD_INCOMPLETE', `no storage gives out ${missing}${others} now`)
      }
    },
  })
}
