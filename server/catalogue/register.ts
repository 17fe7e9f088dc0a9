import { WaybillError } from '../../shared/domain/errors.ts'
import { type Did, formatDid, parseDid } from '../../shared/domain/names.ts'
import type { ReplicaState } from '../../shared/domain/rule-state.ts'
import type { Executor } from '../database/sql.ts'
import { holdForArrival, stuckBeside } from '../rules/arrivals.ts'
import { moveLocks, summedByRule } from '../rules/lock-store.ts'
import { recopy } from '../rules/recopy.ts'
import { reevaluateRules } from '../rules/reevaluate.ts'
import { addToRules, type RuleDelta } from '../rules/store.ts'
import type { Rse } from '../storages/directory.ts'
import { replicaPath, topWithin } from '../storages/paths.ts'
import { cancelNeedless } from '../transfers/cancel.ts'
import { refuseWhileCleaned } from '../transfers/permits.ts'
import { holdContents, insertContents } from './contents-store.ts'
import { refuseWhileDeleted } from './deleted.ts'
import { ensureScopes, type FoundDid, findDids, insertDids } from './did-store.ts'
import { demandNarrow } from './directory-rights.ts'
import { noteScope } from './directory-scope-store.ts'
import { ensureDirectories, findReplicas, insertReplicas, makeAvailable, renewAvailable } from './replica-store.ts'

export interface GivenFile {
  readonly did: string
  readonly bytes: number
  readonly adler32?: string | undefined
  readonly md5?: string | undefined
  /** Absolute at the storage; without it the layout decides. */
  readonly path?: string | undefined
}

export interface Registration {
  readonly rse: Rse
  readonly accountId: number
  readonly dataset: string | undefined
  readonly files: readonly GivenFile[]
  /** Where the files begin in what the caller gave, for the fields of errors. Default 0. */
  readonly first?: number
  readonly state: ReplicaState
  /** The directory that was imported: tokens are asked for it. Without it for each file's own, or what the layout says. */
  readonly top?: string
  readonly now: number
}

export interface Registered {
  readonly fileIds: number[]
  readonly created: number
  readonly attached: number
}

/**
 * Files, their replicas at one storage, and the dataset they belong to, in one transaction. Repeating it changes nothing. With
 * the state AVAILABLE they lie there: replicas that were only announced are available now too, and so are their locks.
 * Throws 400 PATH_OUTSIDE_PREFIX, 409 PATH_TOO_WIDE, FILE_MISMATCH, PATH_TAKEN, REPLICA_EXISTS, DID_TYPE, DID_CLOSED, PATH_BEING_CLEANED; `field` names the file.
 */
export async function registerFiles(executor: Executor, registration: Registration): Promise<Registered> {
  const { rse, files, accountId, now, first = 0 } = registration
  const dids = files.map((file, i) => parseDid(file.did, `files.${first + i}.did`))
  const dataset = registration.dataset === undefined ? undefined : parseDid(registration.dataset, 'dataset')
  const scopes = await ensureScopes(
    executor,
    rse.voId,
    [...dids, ...(dataset === undefined ? [] : [dataset])].map(did => did.scope),
  )
  const rows = dids.map((did, i) => {
    const file = files[i] as GivenFile
    return {
      scope_id: scopeId(scopes, did, `files.${first + i}.did`),
      name: did.name,
      type: 'FILE' as const,
      bytes: file.bytes,
      files: 1,
      adler32: file.adler32 ?? null,
      md5: file.md5 ?? null,
    }
  })
  const created = await insertDids(executor, rows, accountId, now)
  const found = await findDids(executor, rows)
  for (const row of found) checkSameFile(row, files[row.position] as GivenFile, first)
  const idOf = new Map(found.map(row => [row.position, row.id]))
  const fileIds = files.map((_, position) => idOf.get(position) ?? 0)

  await placeReplicas(executor, registration, dids, dataset, fileIds, scopes)
  if (registration.state === 'AVAILABLE') await replicasArrived(executor, rse, fileIds, 'succeed', now)
  const attached = dataset === undefined ? 0 : await attachTo(executor, dataset, scopes, fileIds, accountId, now)
  return { fileIds, created, attached }
}

async function placeReplicas(
  executor: Executor,
  { rse, files, state, top, now, first = 0 }: Registration,
  dids: readonly Did[],
  dataset: Did | undefined,
  fileIds: readonly number[],
  scopes: ReadonlyMap<string, number>,
): Promise<void> {
  const paths = files.map((file, i) => placeOf(rse, file, dids[i] as Did, dataset, top, `files.${first + i}.path`))
  const said = paths.filter((_, i) => files[i]?.path !== undefined)
  await demandNarrow(
    executor,
    rse,
    said.map(path => ({ directory: path.top, field: path.field })),
  )
  const directories = await ensureDirectories(
    executor,
    rse.id,
    paths.map(path => ({ path: path.directory, top: path.top })),
  )
  await noteScopes(
    executor,
    said.map(path => ({ scope: scopes.get(path.scope), directory: directories.get(path.directory)?.id })),
  )
  const replicas = paths.map((path, i) => ({
    file_id: fileIds[i] as number,
    directory_id: directories.get(path.directory)?.id ?? 0,
    name: path.name,
  }))
  // One that is only announced is somebody's when it has arrived.
  await insertReplicas(executor, rse.id, state, replicas, now, { kept: state === 'AVAILABLE' && rse.keepRegistered })
  const placed = new Map((await findReplicas(executor, rse.id, fileIds)).map(row => [row.file_id, row]))
  for (const [i, replica] of replicas.entries()) {
    const row = placed.get(replica.file_id)
    const where = `${paths[i]?.directory}/${replica.name}`
    const field = `files.${first + i}`
    if (row === undefined) {
      const message = `the path ${where} at ${rse.name} belongs to another file: ${formatDid(dids[i] as Did)} cannot be there`
      throw new WaybillError('PATH_TAKEN', message, { status: 409, field })
    }
    const same = row.directory_id === replica.directory_id && row.name === replica.name
    if (!same && files[i]?.path !== undefined) {
      const message = `${formatDid(dids[i] as Did)} has a replica at ${rse.name} already, at another path than ${where}`
      throw new WaybillError('REPLICA_EXISTS', message, { status: 409, field })
    }
  }
}

function placeOf(
  rse: Rse,
  file: GivenFile,
  did: Did,
  dataset: Did | undefined,
  top: string | undefined,
  field: string,
) {
  const { scope } = did
  if (file.path === undefined) {
    const path = replicaPath(rse.layout, did, dataset)
    const [own, directory] = [`${rse.prefix}${path.top}`, `${rse.prefix}${path.directory}`]
    return { scope, field, top: own, directory, name: path.name }
  }
  const directory = directoryOf(rse, file.path, field)
  const own = topWithin(rse.prefix, top ?? directory, directory)
  return { scope, field, top: own, directory, name: file.path.slice(directory.length + 1) }
}

/** Of a file, absolute. Throws 400 PATH_OUTSIDE_PREFIX. */
export function directoryOf(rse: Pick<Rse, 'name' | 'prefix' | 'vo'>, path: string, field: string): string {
  const directory = path.slice(0, path.lastIndexOf('/'))
  if (directory !== '' && `${directory}/`.startsWith(`${rse.prefix}/`)) return directory
  const message = `the path ${path} is not below ${rse.prefix}, where ${rse.vo} may be at ${rse.name}`
  throw new WaybillError('PATH_OUTSIDE_PREFIX', message, { status: 400, field })
}

async function noteScopes(
  executor: Executor,
  said: readonly { readonly scope: number | undefined; readonly directory: number | undefined }[],
): Promise<void> {
  const directoriesOf = new Map<number, Set<number>>()
  for (const { scope, directory } of said) {
    if (scope === undefined || directory === undefined) continue
    directoriesOf.set(scope, (directoriesOf.get(scope) ?? new Set()).add(directory))
  }
  for (const [scope, directories] of directoriesOf) await noteScope(executor, scope, [...directories])
}

async function attachTo(
  executor: Executor,
  dataset: Did,
  scopes: ReadonlyMap<string, number>,
  fileIds: readonly number[],
  accountId: number,
  now: number,
): Promise<number> {
  const row = {
    scope_id: scopeId(scopes, dataset, 'dataset'),
    name: dataset.name,
    type: 'DATASET' as const,
    bytes: 0,
    files: 0,
    adler32: null,
    md5: null,
  }
  await insertDids(executor, [row], accountId, now)
  const [found] = await findDids(executor, [row])
  if (found === undefined || found.type !== 'DATASET') {
    throw new WaybillError('DID_TYPE', `${formatDid(dataset)} is not a dataset`, { status: 409, field: 'dataset' })
  }
  const open = await holdContents(executor, found)
  const attached = await insertContents(executor, found.id, fileIds)
  if (attached.length > 0 && !open) {
    const message = `${formatDid(dataset)} is closed: open it first, or register into another dataset`
    throw new WaybillError('DID_CLOSED', message, { status: 409, field: 'dataset' })
  }
  if (attached.length > 0) await reevaluateRules(executor, found, attached)
  return attached.length
}

function scopeId(scopes: ReadonlyMap<string, number>, did: Did, field: string): number {
  const id = scopes.get(did.scope)
  if (id !== undefined) return id
  throw new WaybillError('SCOPE_OF_OTHER_VO', `the scope ${did.scope} belongs to another VO`, { status: 403, field })
}

/** Why what was given cannot be the file that is known; undefined: it may be. */
export function differenceOf(
  known: FoundDid,
  given: GivenFile,
): { code: 'DID_TYPE' | 'FILE_MISMATCH'; message: string } | undefined {
  if (known.type !== 'FILE') {
    return { code: 'DID_TYPE', message: `${given.did} is a ${known.type.toLowerCase()}, not a file` }
  }
  for (const name of ['bytes', 'adler32', 'md5'] as const) {
    const [old, now] = [known[name], given[name]]
    if (old !== null && now !== undefined && old !== now) {
      const message = `${given.did} is known with ${name} ${old}, but was given with ${now}`
      return { code: 'FILE_MISMATCH', message }
    }
  }
  return undefined
}

function checkSameFile(known: FoundDid, given: GivenFile, first: number): void {
  const difference = differenceOf(known, given)
  if (difference === undefined) return
  const { code, message } = difference
  throw new WaybillError(code, message, { status: 409, field: `files.${first + known.position}` })
}

/**
 * These replicas are there: somebody says so (`succeed`), or has put them there and compared them (`restore`), which replaces what was
 * BAD. They stay without a rule where the storage keeps what is registered, also those that a rule brought. What is stuck for want of
 * these files elsewhere is copied there. How many became available that were not. Throws 409 PATH_BEING_CLEANED and REPLICA_BEING_DELETED.
 */
export async function replicasArrived(
  executor: Executor,
  rse: Pick<Rse, 'id' | 'keepRegistered'>,
  fileIds: readonly number[],
  event: 'succeed' | 'restore',
  now: number,
): Promise<number> {
  const stuck = await holdForArrival(executor, fileIds)
  const replicas = (await findReplicas(executor, rse.id, fileIds)).map(row => row.id)
  await refuseWhileCleaned(executor, replicas, now)
  await refuseWhileDeleted(executor, replicas)
  await cancelNeedless(executor, rse.id, fileIds, now)
  const ids = await makeAvailable(executor, replicas, { event, kept: rse.keepRegistered }, now)
  await renewAvailable(executor, replicas, rse.keepRegistered, now)
  const arrived = await moveLocks(executor, ids, 'succeed')
  const copied = stuck ? await copyElsewhere(executor, rse.id, fileIds, now) : []
  await addToRules(executor, summedByRule([...arrived, ...copied]), now)
  return ids.length
}

/** What is stuck for want of those of these files that are at this storage now. */
async function copyElsewhere(
  executor: Executor,
  rseId: number,
  fileIds: readonly number[],
  now: number,
): Promise<RuleDelta[]> {
  const there = (await findReplicas(executor, rseId, fileIds)).filter(({ state }) => state === 'AVAILABLE')
  const stuck = await stuckBeside(
    executor,
    there.map(({ id }) => id),
  )
  return recopy(executor, [...new Set(stuck.map(({ id }) => id))], now)
}
