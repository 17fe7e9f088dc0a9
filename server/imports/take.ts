import type { z } from 'zod'
import type { ImportDirectory } from '../../shared/contract/routes/import-parts.ts'
import type { transferError } from '../../shared/contract/routes/worker.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { oneLine } from '../../shared/domain/one-line.ts'
import { afterFailure, type RetryPolicy } from '../../shared/domain/retry-policy.ts'
import { EVERYTHING } from '../accounts/sight.ts'
import { fillChecksums } from '../catalogue/did-store.ts'
import { registerFiles } from '../catalogue/register.ts'
import type { Context } from '../context.ts'
import type { Executor } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import {
  addDirectories,
  beginDirectory,
  type FrontierDirectory,
  nextDirectories,
  removeDirectories,
} from './frontier-store.ts'
import { type FoundFile, judgeFiles } from './judge.ts'
import { requireImport } from './routes.ts'
import {
  countTaken,
  type HeldImport,
  type ImportProblem,
  type ImportRow,
  insertImportProblems,
  takePart,
} from './store.ts'
import { endTurn, type Turn, yieldIfClosed } from './turn-store.ts'

export interface FoundPart {
  readonly sessionId: number
  readonly fence: number
  readonly part: number
  readonly files: readonly FoundFile[]
  readonly directories: readonly string[]
  readonly leftOut: readonly ImportProblem[]
  readonly listed: readonly number[]
  readonly begun?: { readonly directory: number; readonly doneUntil: string } | undefined
  readonly error?: z.output<typeof transferError> | undefined
}

/** Of single files, whose catalogue entries changed between the look and the registration: another look tells. */
const OVERTAKEN = new Set(['PATH_TAKEN', 'PATH_TOO_WIDE', 'REPLICA_EXISTS', 'FILE_MISMATCH', 'DID_TYPE'])
const LOOKS = 3
/** They pass by themselves, within minutes. */
const PASSING = new Set(['PATH_BEING_CLEANED', 'REPLICA_BEING_DELETED'])

/**
 * Takes in one part of what a worker found, and answers what is to be listed next; nothing when the import is over. Files, problems
 * and the frontier of directories move together, so that whoever has the import next begins where this part ended. A part that
 * was taken before changes nothing: its answer was lost. What the storage cannot tell now is tried again later, what it or the
 * catalogue refuses ends the import; one that is closed to reading meanwhile is read no further. Throws 409 IMPORT_LOST, or IMPORT_PART_MISSING when a part before it was never taken.
 */
export async function takeFoundPart(
  context: Context,
  policy: RetryPolicy,
  importId: number,
  found: FoundPart,
): Promise<ImportDirectory[]> {
  const { db, wake } = context
  // Session and fence say whether it is the worker's: an account that it has besides is nothing to it.
  const job = await requireImport(db.read, EVERYTHING, importId)
  const held = { id: importId, sessionId: found.sessionId, fence: found.fence, part: found.part }
  const isTaken = await takeOnce(context, policy, job, held, found)
  if (isTaken) wake.notify('rules')
  const row = await requireImport(db.read, EVERYTHING, importId)
  demandTaken(row, held)
  if (isTaken && row.state !== 'LISTING') tellEnd(context, row)
  return row.state === 'LISTING' ? (await nextDirectories(db.read, importId)).map(directoryFor) : []
}

export function directoryFor({ id, path, doneUntil }: FrontierDirectory): ImportDirectory {
  return { directory: id, path, ...(doneUntil === null ? {} : { doneUntil }) }
}

/** Somebody else may have taken it already: then it is told as it is now. */
function tellEnd({ log }: Context, { id, state, files, bytes, left_out: leftOut, error }: ImportRow): void {
  const told = { import: id, state, files, bytes, leftOut }
  if (state === 'QUEUED' && error === null) log.info(told, 'an import waits: its storage is closed to reading')
  else if (error === null) log.info(told, 'an import has ended')
  else log.warn({ ...told, why: error }, 'an import cannot go on')
}

type Contents = Omit<FoundPart, 'sessionId' | 'fence' | 'part'>

async function takeOnce(
  context: Context,
  policy: RetryPolicy,
  job: ImportRow,
  held: HeldImport,
  contents: Contents,
): Promise<boolean> {
  const { db, storages } = context
  const rse = await storages.byId(job.rse_id)
  const take = (part: Contents) => db.write(executor => takeIn(executor, context, policy, { job, rse, held }, part))
  for (let looks = 1; ; looks += 1) {
    try {
      return await take(contents)
    } catch (error) {
      if (!(error instanceof WaybillError)) throw error
      if (OVERTAKEN.has(error.code) && looks < LOOKS) continue
      const { code, message } = error
      const retryable = PASSING.has(code)
      const refusal = { scope: 'GENERAL', phase: 'FINALIZATION', code, message, retryable } as const
      return take({ files: [], directories: [], leftOut: [], listed: [], error: refusal })
    }
  }
}

/** False when this part is not next under this session and fence. */
async function takeIn(
  executor: Executor,
  { clock, random }: Context,
  policy: RetryPolicy,
  { job, rse, held }: { job: ImportRow; rse: Rse; held: HeldImport },
  part: Contents,
): Promise<boolean> {
  const now = clock.now()
  const row = await takePart(executor, held, now)
  if (row === undefined) return false
  const { id } = held
  const { good, present, problems, summed } = await judgeFiles(executor, job, rse, part.files)
  await fillChecksums(executor, summed)
  if (good.length > 0) {
    const place = { rse, accountId: job.account_id, dataset: job.dataset, top: job.path }
    await registerFiles(executor, { ...place, files: good, state: 'AVAILABLE', now })
  }
  const leftOut = [...part.leftOut, ...problems]
  await insertImportProblems(executor, id, leftOut)
  const found = await addDirectories(executor, id, part.directories)
  if (part.begun !== undefined) await beginDirectory(executor, id, part.begun)
  const listed = await removeDirectories(executor, id, part.listed)
  const bytes = good.reduce((sum, file) => sum + file.bytes, 0)
  const taken = { files: good.length, bytes, present, leftOut: leftOut.length, found, listed }
  const moved = taken.files + taken.leftOut + found + listed > 0
  if (moved) await countTaken(executor, id, taken)
  if (part.error !== undefined) {
    const failures = (moved ? 0 : row.failures) + 1
    await endTurn(executor, id, turnAfter(part.error, failures, policy, random.fraction(), now), now)
  }
  await yieldIfClosed(executor, id, now)
  return true
}

/** A storage that is away is waited for, however long, and asked less and less often. */
function turnAfter(
  error: NonNullable<FoundPart['error']>,
  failures: number,
  policy: RetryPolicy,
  fraction: number,
  now: number,
): Turn {
  const { retryAfterSeconds, ...known } = error
  const failure = { ...known, ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }) }
  const next = afterFailure({ ...policy, maxAttempts: Number.POSITIVE_INFINITY }, failures, failure, fraction)
  const words = oneLine(`${error.code}: ${error.message}`, 1000)
  if (!next.again) return { state: 'FAILED', notBefore: 0, failures, error: words }
  return { state: 'QUEUED', notBefore: now + next.afterMs, failures, error: words }
}

/** Throws unless this part was taken, now or before. */
function demandTaken(row: ImportRow, { sessionId, fence, part }: HeldImport): void {
  if (row.fence === fence && part <= row.part && (row.session_id === sessionId || row.state !== 'LISTING')) return
  if (row.fence === fence && row.session_id === sessionId && row.state === 'LISTING') {
    const message = `part ${part} of import ${row.id} came after part ${row.part}: hand in part ${row.part + 1} first`
    throw new WaybillError('IMPORT_PART_MISSING', message, { status: 409, field: 'part' })
  }
  const message = `import ${row.id} is not held under this session and fence`
  throw new WaybillError('IMPORT_LOST', message, { status: 409 })
}
