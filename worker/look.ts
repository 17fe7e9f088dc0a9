import type { StorageTask } from '../shared/contract/routes/worker.ts'
import { transferFailure } from '../shared/storage/classify.ts'
import { type AttemptFailure, asksForRest, failureOf, reportedError } from './failure.ts'
import { momentOf, permitLeft } from './remove.ts'
import type { Done, TaskResult, TaskWorkshop } from './task.ts'
import { inspect, knownChecksums, type Sight } from './verify.ts'

/** HEADs at once: each may make the storage read a whole file. */
const PARALLEL = 8
/** So many files in a row that could not be looked at end a task: the storage is away. */
const IN_A_ROW = 5

type Looked = StorageTask['files'][number]

/**
 * Compares files with what the catalogue says of them. `done`: it is the file. SOURCE_CORRUPT: another lies there, said twice alike.
 * SOURCE_MISSING: none does, though its directory is there and does not list it. Whatever else is answered says nothing of the file.
 */
export async function lookAtFiles(task: StorageTask, workshop: TaskWorkshop): Promise<Done> {
  const { clock, signal, askedAt } = workshop
  const waiting = task.files.filter(({ want }) => want === 'look')
  const results: TaskResult[] = []
  const listed = new Map<string, Promise<ReadonlySet<string>>>()
  let failing = 0
  let error: AttemptFailure | undefined
  const work = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      if (error !== undefined || signal.aborted || permitLeft(askedAt, task.seconds, momentOf(clock)) <= 0) return
      try {
        results.push(await lookAt(file, task, workshop, listed))
        failing = 0
      } catch (thrown) {
        if (signal.aborted) return
        const failure = failureOf(thrown)
        failing += 1
        if (failure.scope === 'TOKEN' || asksForRest(failure) || failing >= IN_A_ROW) error = failure
        results.push(failed(file, failure))
      }
    }
  }
  await Promise.all(Array.from({ length: PARALLEL }, work))
  return { results, ...(error === undefined ? {} : { error }) }
}

async function lookAt(
  file: Looked,
  task: StorageTask,
  workshop: TaskWorkshop,
  listed: Map<string, Promise<ReadonlySet<string>>>,
): Promise<TaskResult> {
  const first = await sightOf(file, task, workshop)
  switch (first.kind) {
    case 'right':
      return { file: file.file, result: 'done' }
    case 'unproven':
      // What has no checksum anywhere is believed in its size, as a copy of it would be.
      if (first.size === file.bytes) return { file: file.file, result: 'done' }
      return failed(file, fault('CHECKSUM_UNAVAILABLE', 'the storage tells neither its size nor a checksum'))
    case 'wrong': {
      // As for sources: XRootD before 6.0.0 may tell another file's checksum (docs/operations.md).
      const second = await sightOf(file, task, workshop)
      const same = second.kind === 'wrong' && second.message === first.message
      const words = `of two looks one says: ${first.message}`
      return failed(file, same ? fault('SOURCE_CORRUPT', first.message) : fault('CHECKSUM_UNAVAILABLE', words))
    }
    case 'absent':
      return failed(file, await whyAbsent(file, task, workshop, listed))
  }
}

function sightOf(
  file: Looked,
  { storage, grant }: StorageTask,
  { access, storages, signal }: TaskWorkshop,
): Promise<Sight> {
  const client = storages.client(storage, file.url)
  const place = { url: file.url, grant, scope: 'SOURCE', storage: client } as const
  const expected = { bytes: file.bytes ?? 0, checksums: knownChecksums(file) }
  return inspect(expected, storage.checksum, 'source', wantDigest =>
    access.use(place, token =>
      client.head(file.url, token, { wantDigest, expectedSize: expected.bytes, scope: 'SOURCE', signal }),
    ),
  )
}

/** A storage that lost sight of a whole disk says 404 too: a file is missing where others of its directory are seen. */
async function whyAbsent(
  file: Looked,
  task: StorageTask,
  workshop: TaskWorkshop,
  listed: Map<string, Promise<ReadonlySet<string>>>,
): Promise<AttemptFailure> {
  const directory = new URL('.', file.url).href
  const paths = listed.get(directory) ?? pathsIn(directory, task, workshop)
  listed.set(directory, paths)
  const found = await paths.catch(failureOf)
  if (!(found instanceof Set)) {
    const { code, message } = found as AttemptFailure
    return fault('NOT_FOUND', `HEAD answered 404, and its directory could not be listed: ${code}: ${message}`)
  }
  if (found.has(decodeURIComponent(new URL(file.url).pathname)))
    return fault('NOT_FOUND', 'HEAD answered 404, though its directory lists it')
  return fault('SOURCE_MISSING', 'HEAD answered 404, and its directory does not list it')
}

async function pathsIn(
  directory: string,
  { storage, grant }: StorageTask,
  { access, storages, signal }: TaskWorkshop,
): Promise<ReadonlySet<string>> {
  const client = storages.client(storage, directory)
  const place = { url: directory, grant, scope: 'SOURCE', storage: client } as const
  const entries = await access.use(place, token => client.list(directory, token, { scope: 'SOURCE', signal }))
  return new Set(entries.map(({ path }) => path))
}

function fault(
  code: 'SOURCE_CORRUPT' | 'SOURCE_MISSING' | 'CHECKSUM_UNAVAILABLE' | 'NOT_FOUND',
  words: string,
): AttemptFailure {
  return transferFailure(code, 'SOURCE', 'PREPARATION', words)
}

function failed({ file }: Looked, failure: AttemptFailure): TaskResult {
  return { file, result: 'failed', error: reportedError(failure) }
}
