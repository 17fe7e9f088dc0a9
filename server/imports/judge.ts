import { checkName } from '../../shared/domain/names.ts'
import { findDids, type KnownSums } from '../catalogue/did-store.ts'
import { tooWide } from '../catalogue/directory-rights.ts'
import { differenceOf, type GivenFile } from '../catalogue/register.ts'
import type { Executor } from '../database/sql.ts'
import { deletedSince } from '../deletion/deleted-paths.ts'
import type { Rse } from '../storages/directory.ts'
import { topWithin } from '../storages/paths.ts'
import { type Lying, whatLies } from './lying-store.ts'
import type { ImportProblem, ImportRow } from './store.ts'

export interface FoundFile {
  readonly path: string
  readonly bytes: number
  readonly adler32?: string | undefined
  readonly md5?: string | undefined
}

export interface Judged {
  /** To be registered: what is there already too, since its dataset may be another's to make. */
  readonly good: GivenFile[]
  /** How many of them the storage's catalogue has as they are. */
  readonly present: number
  readonly problems: ImportProblem[]
  /** Known files of them of which the catalogue lacks a checksum that was told now. */
  readonly summed: KnownSums[]
}

/** What of a part can be taken over: the catalogue's word stands, and who contradicts it is told. */
export async function judgeFiles(
  executor: Executor,
  job: Pick<ImportRow, 'rse_id' | 'scope_id' | 'dataset' | 'dataset_name' | 'path' | 'claimed_at'>,
  rse: Rse,
  files: readonly FoundFile[],
): Promise<Judged> {
  const problems: ImportProblem[] = []
  const scope = job.dataset.slice(0, job.dataset.indexOf(':'))
  const seen = new Set<string>()
  const named = files.flatMap(({ path, ...file }) => {
    if (seen.has(path)) return []
    seen.add(path)
    const name = `${job.dataset_name}/${path}`
    const reason = checkName('did', name)
    if (reason !== undefined) problems.push({ path, code: 'NAME_INVALID', message: reason })
    return reason === undefined
      ? [{ name, path, given: { ...file, did: `${scope}:${name}`, path: `${job.path}/${path}` } }]
      : []
  })
  if (named.length === 0) return { good: [], present: 0, problems, summed: [] }
  const known = new Map(
    (
      await findDids(
        executor,
        named.map(({ name }) => ({ scope_id: job.scope_id, name })),
      )
    ).map(row => [row.position, row]),
  )
  const lying = await whatLies(
    executor,
    job.rse_id,
    named.map(({ given }, position) => ({ position, file_id: known.get(position)?.id ?? 0, path: given.path })),
  )
  const tops = named.map(({ given }) =>
    topWithin(rse.prefix, job.path, given.path.slice(0, given.path.lastIndexOf('/'))),
  )
  const wide = await tooWide(executor, rse, tops)
  const deleted = await deletedSince(
    executor,
    job.rse_id,
    named.map(({ given }) => given.path),
    job.claimed_at ?? 0,
  )
  const good: GivenFile[] = []
  const summed: KnownSums[] = []
  let present = 0
  for (const [position, { path, given }] of named.entries()) {
    const row = known.get(position)
    const there = lying.get(position)
    const problem =
      wideOf(wide, tops[position]) ??
      (row && differenceOf(row, given)) ??
      clashOf(given, there) ??
      goneOf(given, there, deleted)
    if (problem !== undefined) problems.push({ path, ...problem })
    else {
      good.push(given)
      const { adler32 = null, md5 = null } = given
      const lacks = row && ((row.adler32 === null && adler32 !== null) || (row.md5 === null && md5 !== null))
      if (lacks) summed.push({ id: row.id, bytes: given.bytes, adler32, md5 })
      if (there?.state === 'AVAILABLE') present += 1
    }
  }
  return { good, present, problems, summed }
}

function wideOf(reasons: ReadonlyMap<string, string>, top = ''): Omit<ImportProblem, 'path'> | undefined {
  const message = reasons.get(top)
  return message === undefined ? undefined : { code: 'PATH_TOO_WIDE', message }
}

/** What was deleted since the worker may have seen it; what is there again was brought since. */
function goneOf({ did, path }: GivenFile, there: Lying | undefined, deleted: ReadonlySet<string>) {
  if (path === undefined || !deleted.has(path) || there?.state === 'AVAILABLE') return undefined
  const message = `${did} was deleted there while the directory was listed: import again if it lies there`
  return { code: 'REPLICA_BEING_DELETED', message }
}

/** What the catalogue has of the place, or of the file at another. */
function clashOf({ did, path }: GivenFile, there: Lying | undefined): Omit<ImportProblem, 'path'> | undefined {
  if (there === undefined) return undefined
  if (there.own_path === null) {
    return { code: 'PATH_TAKEN', message: `the path belongs to another file: ${there.taken_by}` }
  }
  if (there.own_path !== path) {
    return { code: 'REPLICA_EXISTS', message: `${did} has a replica there already, at ${there.own_path}` }
  }
  if (there.state === 'BEING_DELETED') {
    return { code: 'REPLICA_BEING_DELETED', message: `${did} is being deleted there: import again when that is over` }
  }
  if (there.state === 'BAD') {
    return {
      code: 'REPLICA_BAD',
      message: `what lies there was found to be another file than ${did}: if it was replaced since, have it looked at (waybill replica declare-good), and import again`,
    }
  }
  return undefined
}
