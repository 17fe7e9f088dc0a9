import type { StorageTask } from '../shared/contract/routes/worker.ts'
import type { Secret } from '../shared/domain/secret.ts'
import { transferFailure } from '../shared/storage/classify.ts'
import { tapePath } from '../shared/storage/tape-answers.ts'
import type { ArchiveInfo, Options, RecallState, TapeClient } from '../shared/storage/types.ts'
import { failureOf, reportedError } from './failure.ts'
import type { Done, TaskResult, TaskWorkshop } from './task.ts'

/** How long what comes from tape is to stay on disk. */
const DISK_LIFETIME = 'PT24H'

type Want = StorageTask['files'][number]['want']

/** One step of a recall: new files are asked for, those under way are looked at, those not needed any more are let go of. */
export async function recallFiles(task: StorageTask, workshop: TaskWorkshop): Promise<Done> {
  const results: TaskResult[] = []
  const { request } = task
  const named = (want: Want) => pathsOf(task, want)
  const ask = askerOf(task, workshop, 'SOURCE')
  let asked: string | undefined
  let forgotten = false
  try {
    const [stage, poll, release, cancel] = [named('stage'), named('poll'), named('release'), named('cancel')]
    if (stage.size > 0) {
      const files = [...stage.keys()].map(path => ({ path, diskLifetime: DISK_LIFETIME }))
      const { requestId } = await ask((tape, url, token, options) => tape.stage(url, token, files, options))
      asked = requestId
      results.push(...[...stage.values()].map(file => ({ file, result: 'asked' as const })))
    }
    if (request === undefined) return done(results, asked, forgotten)
    if (poll.size > 0) {
      const paths = [...poll.keys()]
      const progress = await ask((tape, url, token, options) => tape.poll(url, token, request, paths, options))
      forgotten = !progress.known
      const states = progress.known ? progress.files : new Map<string, RecallState>()
      const lost = await lostOf(ask, states)
      results.push(...[...poll].map(([path, file]) => recalled(file, states.get(path), lost.has(path))))
    }
    const [releasing, cancelling] = [[...release.keys()], [...cancel.keys()]]
    if (release.size > 0)
      await ask((tape, url, token, options) => tape.release(url, token, request, releasing, options))
    if (cancel.size > 0) await ask((tape, url, token, options) => tape.cancel(url, token, request, cancelling, options))
    results.push(...[...release.values(), ...cancel.values()].map(file => ({ file, result: 'done' as const })))
    if (task.last && !results.some(stillHeld))
      await ask((tape, url, token, options) => tape.forget(url, token, request, options))
    return done(results, asked, forgotten)
  } catch (error) {
    // What was obeyed before stays told.
    return { ...done(results, asked, forgotten), error: failureOf(error) }
  }
}

/** The storage has not done with it: it is on its way, or on disk until it is released. */
function stillHeld({ result }: TaskResult): boolean {
  return result === 'pending' || result === 'online'
}

/** Whether files are on tape. */
export async function locateFiles(task: StorageTask, workshop: TaskWorkshop): Promise<Done> {
  const paths = pathsOf(task, 'locate')
  try {
    const ask = askerOf(task, workshop, 'DESTINATION')
    const found = await ask((tape, url, token, options) => tape.archiveInfo(url, token, [...paths.keys()], options))
    return { results: [...paths].map(([path, file]) => located(file, found.get(path) ?? {})) }
  } catch (error) {
    return { results: [], error: failureOf(error) }
  }
}

/** Of the files that could not be brought those that never will be: where a file is, a storage says in words that all share. */
async function lostOf(ask: Ask, states: ReadonlyMap<string, RecallState>): Promise<Set<string>> {
  const failing = [...states].filter(([, { kind }]) => kind === 'failed').map(([path]) => path)
  if (failing.length === 0) return new Set()
  const places = await ask((tape, url, token, options) => tape.archiveInfo(url, token, failing, options)).catch(
    error => {
      // Nobody says that they are lost, then; and the others are told all the same.
      failureOf(error)
      return new Map<string, ArchiveInfo>()
    },
  )
  return new Set(
    [...places].filter(([, { locality }]) => locality === 'LOST' || locality === 'NONE').map(([path]) => path),
  )
}

/** What a storage says of a file of a recall. */
export function recalled(file: number, state: RecallState | undefined, lost: boolean): TaskResult {
  switch (state?.kind) {
    case 'staged':
      return { file, result: 'online' }
    case 'failed':
      return failed(file, lost ? 'FILE_LOST' : 'STAGING_FAILED', state.words)
    case 'cancelled':
      return failed(file, 'STAGING_FAILED', 'the storage cancelled the recall')
    default:
      return { file, result: 'pending' }
  }
}

/** An error beside a place: it will not be written to tape soon. What is on tape alone is there as well. */
export function located(file: number, { locality, error }: ArchiveInfo): TaskResult {
  if (locality === 'TAPE' || locality === 'DISK_AND_TAPE') return { file, result: 'done' }
  if (locality === 'LOST' || locality === 'NONE') {
    return failed(file, 'ARCHIVING_FAILED', error ?? `the storage says that the file is ${locality}`)
  }
  return error === undefined ? { file, result: 'pending' } : failed(file, 'ARCHIVING_FAILED', error)
}

function failed(file: number, code: 'FILE_LOST' | 'STAGING_FAILED' | 'ARCHIVING_FAILED', words: string): TaskResult {
  const scope = code === 'ARCHIVING_FAILED' ? 'DESTINATION' : 'SOURCE'
  return { file, result: 'failed', error: reportedError(transferFailure(code, scope, 'PREPARATION', words)) }
}

function done(results: TaskResult[], request: string | undefined, forgotten: boolean): Done {
  return { results, forgotten, ...(request === undefined ? {} : { request }) }
}

/** By path at the storage: the files of which this is wanted. */
function pathsOf({ files }: StorageTask, want: Want): Map<string, number> {
  return new Map(files.filter(file => file.want === want).map(({ file, url }) => [tapePath(url), file]))
}

/** One request, and once more with another token if the first is refused: each by itself, since what was asked for twice is brought twice. */
type Ask = <T>(request: (tape: TapeClient, url: string, token: Secret, options: Options) => Promise<T>) => Promise<T>

function askerOf(
  { storage, grant, files }: StorageTask,
  { access, storages, signal }: TaskWorkshop,
  scope: 'SOURCE' | 'DESTINATION',
): Ask {
  const [first] = files
  if (first === undefined) throw new Error('a task without files')
  const { url } = first
  const client = storages.client(storage, url)
  const place = { url, grant, scope, storage: client }
  return request => access.use(place, token => request(client.tape, url, token, { scope, signal }))
}
