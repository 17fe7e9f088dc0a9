import { createReadStream } from 'node:fs'
import { Readable } from 'node:stream'
import type { Command } from 'commander'
import type { Client } from '../shared/contract/client.ts'
import { MOST_REPLACED } from '../shared/contract/routes/people.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { parseDid } from '../shared/domain/names.ts'
import type { Secret } from '../shared/domain/secret.ts'
import { newRecipient } from '../shared/oidc/sealed-transport.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { ChecksumAlgorithm, StorageClient } from '../shared/storage/types.ts'
import { addCommand, type Tools } from './command.ts'
import { inParallel } from './in-parallel.ts'
import { findLocalFiles, type LocalFile, type Sums, sumsOf } from './local-files.ts'
import { bytesText } from './output.ts'
import { chunks } from './pages.ts'
import { usableUntil } from './usable-until.ts'
import { someNumber } from './values.ts'
import { ProgressLine } from './watch.ts'

/** As many as one plan takes. */
const MOST = 1000
const WIDTH = 4

export interface UploadOptions {
  readonly client: Pick<Client, 'planUpload' | 'confirmUpload'>
  readonly storage: Pick<StorageClient, 'put' | 'head' | 'remove'>
  readonly clock: Clock
  readonly rse: string
  /** `scope:dataset`; the files are called `scope:dataset/path`, since names are unique in a scope. */
  readonly dataset: string
  readonly files: readonly LocalFile[]
  readonly width?: number
  /** Removes what lies where a file belongs and is not it. */
  readonly replace?: boolean
  readonly onProgress?: (done: UploadCounts) => void
}

export interface UploadCounts {
  readonly files: number
  readonly bytes: number
  /** Files that were there already. */
  readonly skipped: number
}

interface SummedFile extends LocalFile, Sums {
  readonly did: string
}

interface PlannedFile extends SummedFile {
  readonly url: string
}

/** A plan as far as its token lasts. */
interface Plan {
  readonly waiting: readonly PlannedFile[]
  readonly done: readonly SummedFile[]
  /** None where nothing waits. */
  readonly token: Secret | undefined
  /** On the wall clock, epoch milliseconds. */
  readonly usableUntil: number
  readonly checksum: ChecksumAlgorithm
}

/**
 * Brings files to a storage and into a dataset: planned by the server, sent straight to the storage, compared there by size
 * and checksum, then confirmed. What is there already is skipped, so it can be repeated.
 */
export async function uploadFiles(options: UploadOptions): Promise<UploadCounts> {
  const { scope, name } = parseDid(options.dataset)
  const counts = { files: 0, bytes: 0, skipped: 0 }
  const count = (file: SummedFile, skipped: boolean): void => {
    counts.files += 1
    counts.bytes += file.bytes
    counts.skipped += skipped ? 1 : 0
    options.onProgress?.(counts)
  }
  for (const chunk of chunks(options.files, options.replace === true ? MOST_REPLACED : MOST)) {
    let left: SummedFile[] = await summed(chunk, `${scope}:${name}/`)
    while (left.length > 0) {
      const plan = await planUpload(options, left)
      for (const file of plan.done) count(file, true)
      const sent = await sendPlanned(options, plan, file => count(file, false))
      const over = new Set([...plan.done, ...sent].map(({ did }) => did))
      left = left.filter(({ did }) => !over.has(did))
    }
  }
  return counts
}

async function summed(files: readonly LocalFile[], prefix: string): Promise<SummedFile[]> {
  const result: SummedFile[] = []
  for (const file of files) {
    result.push({ ...file, ...(await sumsOf(file.path, file.bytes)), did: prefix + file.name })
  }
  return result
}

async function planUpload(
  { client, clock, rse, dataset, replace = false }: UploadOptions,
  files: readonly SummedFile[],
): Promise<Plan> {
  const recipient = await newRecipient()
  const wanted = files.map(({ did, bytes, adler32, md5 }) => ({ did, bytes, adler32, md5 }))
  const plan = await client.planUpload({ body: { rse, dataset, files: wanted, replace, key: recipient.publicJwk } })
  const answers = new Map(plan.files.map(file => [file.did, file]))
  return {
    done: files.filter(({ did }) => answers.get(did)?.done === true),
    waiting: files.flatMap(file => {
      const answer = answers.get(file.did)
      return answer === undefined || answer.done ? [] : [{ ...file, url: answer.url }]
    }),
    token:
      plan.token === undefined || plan.context === undefined
        ? undefined
        : await recipient.open(plan.token, plan.context),
    usableUntil: usableUntil(plan.expiresAt ?? 0, clock.now()),
    checksum: plan.checksum,
  }
}

/** Sends as many as the token's life allows, one at least, and confirms what arrived, whatever happened to the others. */
async function sendPlanned(
  options: UploadOptions,
  plan: Plan,
  onSent: (file: SummedFile) => void,
): Promise<SummedFile[]> {
  const { client, clock, rse, width = WIDTH } = options
  const sent: SummedFile[] = []
  let begun = 0
  try {
    await inParallel(plan.waiting, width, async file => {
      if (begun > 0 && clock.now() >= plan.usableUntil) return
      begun += 1
      await sendFile(options, plan, file)
      sent.push(file)
      onSent(file)
    })
  } finally {
    if (sent.length > 0) await confirm(client, rse, sent)
  }
  return sent
}

/** Throws the first refusal: the others are confirmed, and all may be repeated. */
async function confirm(client: UploadOptions['client'], rse: string, sent: readonly SummedFile[]): Promise<void> {
  const { refused } = await client.confirmUpload({ body: { rse, files: sent.map(({ did }) => did) } })
  const [first] = refused
  if (first === undefined) return
  const more = refused.length === 1 ? '' : ` (and ${refused.length - 1} more)`
  throw new WaybillError(first.code, `${first.did}${more}: ${first.message}; repeat the upload`)
}

async function sendFile({ storage, replace = false }: UploadOptions, plan: Plan, file: PlannedFile): Promise<void> {
  const { token, checksum } = plan
  if (token === undefined) throw new Error(`the server gave no token for ${file.did}`)
  const lies = async (): Promise<'right' | 'wrong' | 'absent'> => {
    const found = await storage.head(file.url, token, { wantDigest: checksum, expectedSize: file.bytes })
    if (!found.exists) return 'absent'
    // A storage that tells no checksum is believed in the size.
    const sum = found.checksums[checksum] ?? file[checksum]
    return found.size === file.bytes && sum === file[checksum] ? 'right' : 'wrong'
  }
  const before = await lies()
  if (before === 'right') return
  if (before === 'wrong' && replace) await storage.remove(file.url, token)
  else if (before === 'wrong') {
    throw new WaybillError(
      'UPLOAD_CONFLICT',
      `${file.path}: another file lies at ${file.url}, perhaps an upload that broke off; repeat with --replace to remove it first`,
    )
  }
  // It was just looked at: nothing is overwritten.
  const failure = await storage.put(file.url, token, contentOf(file), file.bytes, { overwrite: true }).then(
    () =>
      new WaybillError('UPLOAD_DAMAGED', `${file.path}: what lies at ${file.url} now is not what was sent: repeat it`),
    (error: unknown) => error,
  )
  // What lies there decides, not how the sending ended: an answer can get lost.
  if ((await lies()) !== 'right') throw failure
}

/** As many bytes as were announced, whatever is appended to the file meanwhile. */
function contentOf({ path, bytes }: LocalFile): Readable {
  return bytes === 0 ? Readable.from([]) : createReadStream(path, { end: bytes - 1 })
}

export function addUploadCommand(program: Command, tools: Tools): void {
  addCommand<{ rse: string; did: string; parallel: number; replace?: boolean }>(program, tools, {
    usage: 'upload <files...>',
    summary: 'bring files, or directories of them, to a storage and into a dataset; can be repeated',
    options: command =>
      command
        .requiredOption('--rse <name>', 'the storage')
        .requiredOption('--did <scope:dataset>', 'the dataset; made if it is not there')
        .option('--replace', 'remove what lies where a file belongs and is not it: after an upload that broke off')
        .option('--parallel <n>', 'files at a time', someNumber, WIDTH),
    examples: ['upload *.root --rse SITE-A --did exp:run1', 'upload results/ --rse SITE-A --did exp:run1'],
    run: async ({ client, storage, output, terminal, clock }, paths, { rse, did, parallel, replace = false }) => {
      const files = await findLocalFiles(paths)
      const line = new ProgressLine(terminal, clock)
      const onProgress = (done: UploadCounts): void =>
        line.show(`${done.files} of ${files.length} files, ${bytesText(done.bytes)}`)
      const upload = { client, storage, clock, rse, dataset: did, files, width: parallel, replace, onProgress }
      const counts = await uploadFiles(upload).finally(() => line.end())
      output.done(
        `${counts.files} files (${bytesText(counts.bytes)}) are at ${rse} and in ${did}; ${counts.skipped} were there before`,
        counts,
      )
    },
  })
}
