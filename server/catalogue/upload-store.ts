import { WaybillError } from '../../shared/domain/errors.ts'
import { ACTIVE_STATES, ENDED_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, keyset, lockRows, oneOf, query, queryOne, stateList } from '../database/sql.ts'
import { holdForArrival } from '../rules/arrivals.ts'
import type { Rse } from '../storages/directory.ts'
import { forgetWritten } from '../transfers/outcome-store.ts'
import { refuseWhileCleaned, reservePaths } from '../transfers/permits.ts'
import { refuseWhileDeleted } from './deleted.ts'
import { replicasArrived } from './register.ts'
import { findReplicas, transferring } from './replica-store.ts'

/** A file that was begun with the token's last breath may be on its way so long after it, and be confirmed then. Milliseconds. */
const GRACE_MS = 3_600_000
/** For a DELETE that was sent with the token's last breath. */
const DELETE_MARGIN_MS = 30_000

export interface UploadPlan {
  readonly rseId: number
  readonly accountId: number
  readonly fileIds: readonly number[]
  /** When the person's token ends. */
  readonly expiresAt: number
  /** The token may remove what lies at these paths: no worker begins there while it lives. */
  readonly replace: boolean
}

/**
 * Writes down that a person is about to put these files at a storage, before they can: what lies there from now on may be
 * theirs, and while the plan lasts no worker removes it (docs/decisions/0008). Throws 409 UPLOAD_TRANSFERRING and
 * PATH_BEING_CLEANED where a worker is at it, UPLOAD_CHANGED where a file has arrived that would be replaced.
 */
export async function planFiles(executor: Executor, plan: UploadPlan, now: number): Promise<void> {
  const { rseId, accountId, fileIds, expiresAt, replace } = plan
  const replicas = (await findReplicas(executor, rseId, fileIds)).map(row => row.id)
  await lockWithTransfers(executor, replicas)
  await refuseTransferring(executor, rseId, fileIds)
  await refuseWhileCleaned(executor, replicas, now)
  await refuseWhileDeleted(executor, replicas)
  if (replace && (await reservePaths(executor, replicas, expiresAt + DELETE_MARGIN_MS)) < replicas.length) {
    const message = 'one of these files has arrived meanwhile, and must not be replaced: plan again'
    throw new WaybillError('UPLOAD_CHANGED', message, { status: 409, field: 'files' })
  }
  await forgetWritten(executor, replicas)
  await query(
    executor,
    `INSERT INTO uploads (replica_id, account_id, until)
     SELECT value, :accountId, :until FROM ${keyset(executor, 'replicas')} AS given WHERE true
     ON CONFLICT (replica_id, account_id) DO UPDATE SET until = excluded.until`,
    { replicas: encodeRows(replicas), accountId, until: expiresAt + GRACE_MS },
  )
}

/** Bytes of those of these files that the account has no lock on at this storage: what it has is counted already. */
export async function unlockedBytes(
  executor: Executor,
  { rseId, accountId, fileIds }: Pick<UploadPlan, 'rseId' | 'accountId' | 'fileIds'>,
): Promise<number> {
  const row = await queryOne<{ bytes: number }>(
    executor,
    `SELECT CAST(coalesce(sum(dids.bytes), 0) AS bigint) AS bytes FROM replicas JOIN dids ON dids.id = replicas.file_id
      WHERE replicas.rse_id = :rseId AND replicas.file_id ${oneOf(executor, 'files')}
        AND NOT EXISTS (SELECT 1 FROM locks JOIN rules ON rules.id = locks.rule_id
              WHERE locks.replica_id = replicas.id AND rules.account_id = :accountId)`,
    { rseId, accountId, files: encodeRows(fileIds) },
  )
  return row?.bytes ?? 0
}

/** A claim or a permit that is being given to a transfer to these replicas is waited for; one that comes later finds what we write. */
async function lockWithTransfers(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  await lockRows(executor, 'replicas', replicaIds)
  const open = await query<{ id: number }>(
    executor,
    `SELECT id FROM transfers WHERE state NOT IN (${stateList(ENDED_STATES)}) AND replica_id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
  await lockRows(
    executor,
    'transfers',
    open.map(row => row.id),
  )
}

/** A worker may be writing there: what it does is not removed under its hands, nor written over. */
async function refuseTransferring(executor: Executor, rseId: number, fileIds: readonly number[]): Promise<void> {
  const [first] = await transferring(executor, rseId, fileIds)
  if (first === undefined) return
  const message = `${first} is being brought there by a worker now: try again when that is over`
  throw new WaybillError('UPLOAD_TRANSFERRING', message, { status: 409, field: 'files' })
}

/** What is known of a file that is said to be uploaded. */
export interface UploadFacts {
  readonly available: boolean
  /** By this account, and the plan has not run out. */
  readonly planned: boolean
  /** What lay there is being deleted. */
  readonly deleted: boolean
  /** A worker has the open transfer to the same place. */
  readonly transferring: boolean
  /** A worker's COPY was taken there since the file was planned, and did not end well. */
  readonly written: boolean
}

/** Why a file cannot be confirmed; undefined: it can, or is available already. Pure. */
export function refusalOf(facts: UploadFacts): { code: string; message: string } | undefined {
  if (facts.available) return undefined
  if (facts.deleted) {
    return { code: 'REPLICA_BEING_DELETED', message: 'it is being deleted there: plan it again when that is over' }
  }
  if (!facts.planned) {
    const message = 'this account has planned no upload of it there, or too long ago: plan it, and look what lies there'
    return { code: 'UPLOAD_NOT_PLANNED', message }
  }
  if (facts.transferring) {
    const message = 'it is being brought there by a worker now: try again when that is over'
    return { code: 'UPLOAD_TRANSFERRING', message }
  }
  if (facts.written) {
    const message = 'a worker has written there since it was planned: plan it again, and look what lies there'
    return { code: 'UPLOAD_DISTURBED', message }
  }
  return undefined
}

export interface Confirmed {
  /** How many became available that were not. */
  readonly available: number
  readonly refused: readonly { fileId: number; code: string; message: string }[]
}

/** Takes the word of who planned these files that they are there and were compared. Each is judged by itself. */
export async function confirmFiles(
  executor: Executor,
  upload: {
    readonly rse: Pick<Rse, 'id' | 'keepRegistered'>
    readonly accountId: number
    readonly fileIds: readonly number[]
  },
  now: number,
): Promise<Confirmed> {
  const { rse, accountId, fileIds } = upload
  await holdForArrival(executor, fileIds)
  const replicas = await findReplicas(executor, rse.id, fileIds)
  await lockWithTransfers(
    executor,
    replicas.map(row => row.id),
  )
  const found = await query<{ file_id: number } & Record<keyof UploadFacts, number | boolean>>(
    executor,
    `SELECT replicas.file_id, replicas.state = 'AVAILABLE' AS available, replicas.state = 'BEING_DELETED' AS deleted,
            EXISTS (SELECT 1 FROM uploads WHERE uploads.replica_id = replicas.id AND uploads.account_id = :accountId
                     AND uploads.until > :now) AS planned,
            EXISTS (SELECT 1 FROM transfers WHERE transfers.replica_id = replicas.id
                     AND transfers.state IN (${stateList(ACTIVE_STATES)})) AS transferring,
            EXISTS (SELECT 1 FROM transfers WHERE transfers.replica_id = replicas.id
                     AND transfers.written_fence IS NOT NULL) AS written
       FROM replicas WHERE replicas.id ${oneOf(executor, 'replicas')}`,
    { accountId, now, replicas: encodeRows(replicas.map(row => row.id)) },
  )
  const facts = new Map(found.map(row => [row.file_id, row]))
  const refused = fileIds.flatMap(fileId => {
    const row = facts.get(fileId)
    const refusal = refusalOf({
      available: Boolean(row?.available),
      planned: Boolean(row?.planned),
      deleted: Boolean(row?.deleted),
      transferring: Boolean(row?.transferring),
      written: Boolean(row?.written),
    })
    return refusal === undefined ? [] : [{ fileId, ...refusal }]
  })
  const not = new Set(refused.map(({ fileId }) => fileId))
  const good = fileIds.filter(fileId => !not.has(fileId))
  return { available: await replicasArrived(executor, rse, good, 'restore', now), refused }
}
