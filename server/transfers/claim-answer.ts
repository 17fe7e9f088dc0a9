import type { ImportJob, StorageTask } from '../../shared/contract/routes/worker.ts'
import type { RetryPolicy } from '../../shared/domain/retry-policy.ts'
import { nextDirectories } from '../imports/frontier-store.ts'
import type { ImportRow } from '../imports/store.ts'
import { directoryFor } from '../imports/take.ts'
import { protocolOf, type Rse } from '../storages/directory.ts'
import { replicaUrl, storageUrl } from '../storages/paths.ts'
import type { TokenContext } from '../tokens/tokens.ts'
import type { ClaimedRow } from './claim-places.ts'
import { type Mode, modeFor } from './modes.ts'
import { applyOutcomes } from './outcomes.ts'
import { describeClaimed, type WorkerTransfer } from './read-store.ts'

/** What a claim gives. */
export interface Work {
  readonly claimed: readonly ClaimedRow[]
  /** More is queued on their link. */
  readonly more: boolean
  readonly renewals: readonly number[]
  readonly imports: readonly ImportRow[]
  readonly tasks: readonly StorageTask[]
}

export const NOTHING: Work = { claimed: [], more: false, renewals: [], imports: [], tasks: [] }

/** What a worker needs to drive what it was given. */
export async function describeWork(
  context: TokenContext,
  retry: RetryPolicy,
  session: number,
  { claimed, more, renewals, imports, tasks }: Work,
  drained: boolean,
) {
  const rses = new Map((await context.storages.all()).map(rse => [rse.id, rse]))
  const rows = (await describeClaimed(context.db.read, claimed))
    .filter(hasGrants)
    .filter(row => rses.has(row.source_rse_id) && rses.has(row.destination_rse_id))
  const described = new Set(rows.map(row => row.id))
  await handBack(
    context,
    retry,
    session,
    claimed.filter(({ id }) => !described.has(id)),
  )
  const used = new Set(rows.flatMap(row => [row.source_rse_id, row.destination_rse_id]))
  return {
    transfers: rows.map(row => transferFor(row, rses)),
    more,
    storages: [...used].flatMap(id => rses.get(id) ?? []).map(storageFor),
    renewals: [...renewals],
    imports: (await Promise.all(imports.map(job => importFor(context, job, rses.get(job.rse_id))))).flat(),
    tasks: [...tasks],
    drained,
  }
}

async function importFor({ db }: TokenContext, job: ImportRow, rse: Rse | undefined): Promise<ImportJob[]> {
  if (rse === undefined || job.grant_id === null) return []
  const { id, fence, dataset_name: dataset, checksum, grant_id: grant } = job
  const url = storageUrl(protocolOf(rse).url, job.path)
  const directories = (await nextDirectories(db.read, id)).map(directoryFor)
  // With the storage's checksums no file is taken that has none.
  const summed = checksum === 'storage' && job.files > 0
  return [{ import: id, fence, url, grant, dataset, checksum, summed, directories, storage: storageFor(rse) }]
}

function transferFor(
  row: WorkerTransfer & { source_grant_id: number; destination_grant_id: number },
  rses: ReadonlyMap<number, Rse>,
) {
  const place = (rseId: number, directory: string, name: string, grant: number) => {
    const rse = rses.get(rseId)
    if (rse === undefined) throw new Error(`storage ${rseId} is gone`)
    return { rse: rse.name, url: replicaUrl(protocolOf(rse).url, directory, name), grant }
  }
  return {
    transfer: row.id,
    fence: row.fence,
    kind: row.state === 'SETTLING' ? ('settle' as const) : ('copy' as const),
    did: row.did,
    bytes: row.bytes,
    source: place(row.source_rse_id, row.source_directory, row.source_name, row.source_grant_id),
    destination: place(
      row.destination_rse_id,
      row.destination_directory,
      row.destination_name,
      row.destination_grant_id,
    ),
    ...modeOf(row),
    ...(row.adler32 === null ? {} : { adler32: row.adler32 }),
    ...(row.md5 === null ? {} : { md5: row.md5 }),
  }
}

function modeOf({ id, state, attempts, preferred_mode, mode_tries }: WorkerTransfer): { mode?: Mode } {
  if (state === 'SETTLING' || preferred_mode === null) return {}
  return { mode: modeFor(id, attempts, { preferred: preferred_mode, tries: mode_tries ?? 0 }) }
}

export function storageFor(rse: Rse) {
  const { canPull, canPush, freshConnections, macaroons, redirectHosts } = protocolOf(rse)
  return {
    rse: rse.name,
    canPull,
    canPush,
    checksum: rse.checksum,
    checksumPolicy: rse.checksumPolicy,
    watchdogs: rse.watchdogs,
    freshConnections,
    macaroons,
    redirectHosts: [...redirectHosts],
  }
}

function hasGrants(
  row: WorkerTransfer,
): row is WorkerTransfer & { source_grant_id: number; destination_grant_id: number } {
  return row.source_grant_id !== null && row.destination_grant_id !== null
}

/** Their grants ended between the claim and the look, or this server has not heard of a storage yet: they go back. */
async function handBack(
  context: TokenContext,
  retry: RetryPolicy,
  session: number,
  rows: readonly ClaimedRow[],
): Promise<void> {
  if (rows.length === 0) return
  // Nobody has looked: what an earlier attempt may have left there is still its own.
  const untouched = {
    result: 'handed-back',
    left: 'unknown',
    durationMs: 0,
    endedMsAgo: 0,
    bytes: 0,
    cleaned: false,
  } as const
  const outcomes = rows.map(({ id: transfer, fence }) => ({ transfer, fence, ...untouched }))
  await applyOutcomes(context, retry, session, outcomes)
}
