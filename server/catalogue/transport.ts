import { MOST_REPLACED } from '../../shared/contract/routes/people.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { parseDid } from '../../shared/domain/names.ts'
import { checkRecipientKey } from '../../shared/oidc/sealed-transport.ts'
import type { Caller, CallerAccount } from '../accounts/caller.ts'
import { demandPermission } from '../accounts/permissions.ts'
import { Quota } from '../accounts/quota.ts'
import { type Sight, sightOf } from '../accounts/sight.ts'
import { limitsFor, usageOf } from '../accounts/usage-store.ts'
import type { Handlers } from '../app.ts'
import { decodeCursor, encodeCursor } from '../database/cursor.ts'
import type { Executor } from '../database/sql.ts'
import { protocolOf, type Rse } from '../storages/directory.ts'
import { replicaUrl } from '../storages/paths.ts'
import { personalAccess } from '../tokens/personal.ts'
import type { TokenContext } from '../tokens/tokens.ts'
import { filesOf } from './contents-store.ts'
import { findDidsNamed, namesOf } from './did-store.ts'
import { groupDirectories } from './directory-groups.ts'
import { demandTops } from './directory-rights.ts'
import { demandRegistration } from './permitted.ts'
import { registerFiles } from './register.ts'
import { type ListedReplica, listReplicasOf } from './replica-list.ts'
import { requireDid, requireVo } from './routes.ts'
import { confirmFiles, planFiles, unlockedBytes } from './upload-store.ts'

type TransportHandlers = Pick<Handlers, 'planUpload' | 'confirmUpload' | 'planDownload'>

/** The keys of these DIDs, which must be of this VO. Throws as `requireDid` does; `field` names the first that is at fault. */
async function ownFiles(read: Executor, sight: Sight, voId: number, texts: readonly string[]): Promise<number[]> {
  const dids = texts.map((text, i) => parseDid(text, `files.${i}`))
  const found = new Map((await findDidsNamed(read, dids)).map(row => [row.position, row]))
  const ids: number[] = []
  for (const [i, did] of dids.entries()) {
    const field = `files.${i}`
    const row = found.get(i)
    if (row === undefined || row.vo_id !== voId) {
      await requireDid(read, sight, did, field)
      throw new WaybillError('SCOPE_OF_OTHER_VO', `${texts[i]} belongs to another VO`, { status: 403, field })
    }
    ids.push(row.id)
  }
  return ids
}

/**
 * A token for what waits to be sent opens one directory, in which the caller may write. What a path was given for, and by whom, may be
 * long ago. Throws 409 UPLOAD_SCATTERED and PATH_TOO_WIDE, 403 SCOPE_FORBIDDEN.
 */
async function demandUpload(
  executor: Executor,
  caller: Caller,
  rse: Rse,
  waiting: readonly ListedReplica[],
): Promise<void> {
  const tops = [...new Set(waiting.map(row => row.top))]
  if (tops.length > 1) {
    const message = `these files do not share one directory at ${rse.name}: upload them in groups, one dataset at a time`
    throw new WaybillError('UPLOAD_SCATTERED', message, { status: 409, field: 'files' })
  }
  const named = tops.map(directory => ({ directory, field: 'files' }))
  await demandTops(executor, caller, rse, named)
}

/**
 * What a person brings is kept without a lock, so it is in nobody's usage: it shall be no more than the account might lock there. Throws
 * 409 QUOTA_EXCEEDED.
 */
async function demandQuota(
  executor: Executor,
  { id, name }: CallerAccount,
  rse: Rse,
  rses: readonly Rse[],
  fileIds: readonly number[],
): Promise<void> {
  const limits = await limitsFor(executor, id)
  if (limits.length === 0 || fileIds.length === 0) return
  const left = Math.max(0, new Quota(limits, await usageOf(executor, id), rses).left(rse.id))
  const bytes = await unlockedBytes(executor, { rseId: rse.id, accountId: id, fileIds })
  if (bytes <= left) return
  const message = `these files have ${bytes} bytes, and ${name} may have no more than ${left} more at ${rse.name}: ask an admin for a higher limit, or remove rules (\`waybill account usage ${name}\`)`
  throw new WaybillError('QUOTA_EXCEEDED', message, { status: 409, field: 'files' })
}

/** People's own upload and download: the server decides paths and gives narrow tokens, the bytes never pass through it. */
export function transportHandlers(context: TokenContext): TransportHandlers {
  const { db, storages } = context

  return {
    async planUpload({ body, caller, signal }) {
      await checkRecipientKey(body.key)
      const { account } = caller
      const rse = await storages.byName(sightOf(caller), body.rse)
      requireVo(rse, account.voId)
      if (!rse.availabilityWrite)
        throw new WaybillError('RSE_NOT_WRITABLE', `${rse.name} takes no writes now`, { status: 409, field: 'rse' })
      if (body.replace && !rse.availabilityDelete) {
        const message = `nothing may be deleted at ${rse.name} now`
        throw new WaybillError('RSE_NOT_DELETABLE', message, { status: 409, field: 'replace' })
      }
      const rses = await storages.ofVo(rse.voId)
      const { dataset, files } = body
      const now = context.clock.now()
      const { fileIds, replicas, waiting } = await db.write(async executor => {
        await demandRegistration(executor, caller, { rse, dataset, files })
        const registration = { rse, accountId: account.id, dataset, files, state: 'COPYING' as const, now }
        const { fileIds } = await registerFiles(executor, registration)
        const replicas = new Map(
          (await listReplicasOf(executor, fileIds, { rseId: rse.id })).map(row => [row.file_id, row]),
        )
        const waiting = [...replicas.values()].filter(row => row.state !== 'AVAILABLE')
        await demandUpload(executor, caller, rse, waiting)
        const waitingIds = waiting.map(row => row.file_id)
        await demandQuota(executor, account, rse, rses, waitingIds)
        return { fileIds, replicas, waiting }
      })
      context.wake.notify('rules')
      const { replace } = body
      if (replace && waiting.length > MOST_REPLACED) {
        const message = `a token to replace is for at most ${MOST_REPLACED} files, one by one: plan so many at a time`
        throw new WaybillError('UPLOAD_TOO_MANY', message, { status: 409, field: 'files' })
      }
      const paths = replace
        ? waiting.map(row => `${row.directory}/${row.name}`)
        : waiting.slice(0, 1).map(row => row.top)
      const access =
        paths.length === 0
          ? undefined
          : await personalAccess(context, rse, replace ? 'replace' : 'upload', paths, body.key, signal)
      if (access !== undefined) {
        const planned = {
          rseId: rse.id,
          accountId: account.id,
          fileIds: waiting.map(row => row.file_id),
          expiresAt: access.expiresAt,
          replace,
        }
        // Before the token is given out.
        await db.write(executor => planFiles(executor, planned, context.clock.now()))
      }
      const { url } = protocolOf(rse)
      return {
        files: fileIds.map((id, i) => {
          const replica = replicas.get(id)
          if (replica === undefined) throw new Error(`file ${id} has no replica`)
          const did = files[i]?.did ?? ''
          return { did, url: replicaUrl(url, replica.directory, replica.name), done: replica.state === 'AVAILABLE' }
        }),
        checksum: rse.checksum,
        ...access,
      }
    },
    async confirmUpload({ body, caller }) {
      const sight = sightOf(caller)
      const { account } = caller
      const rse = await storages.byName(sight, body.rse)
      requireVo(rse, account.voId)
      const fileIds = await ownFiles(db.read, sight, account.voId, body.files)
      const upload = { rse, accountId: account.id, fileIds }
      const named = body.files.map((text, i) => ({ scope: parseDid(text).scope, field: `files.${i}` }))
      const { available, refused } = await db.write(async executor => {
        await demandPermission(executor, caller, 'write', named)
        return confirmFiles(executor, upload, context.clock.now())
      })
      const names = new Map(fileIds.map((id, i) => [id, body.files[i] ?? '']))
      return {
        available,
        refused: refused.map(({ fileId, code, message }) => ({ did: names.get(fileId) ?? '', code, message })),
      }
    },
    async planDownload({ body, caller, signal }) {
      await checkRecipientKey(body.key)
      const sight = sightOf(caller)
      const did = await requireDid(db.read, sight, parseDid(body.did))
      if (did.vo_id !== caller.account.voId) {
        throw new WaybillError('SCOPE_OF_OTHER_VO', `${body.did} belongs to another VO`, { status: 403, field: 'did' })
      }
      if (did.type === 'CONTAINER') {
        throw new WaybillError('DID_TYPE', 'download its datasets one by one', { status: 400, field: 'did' })
      }
      const rseId = body.rse === undefined ? undefined : (await storages.byName(sight, body.rse)).id
      const rses = new Map(
        (await storages.ofVo(did.vo_id)).filter(rse => rse.availabilityRead).map(rse => [rse.id, rse]),
      )
      const found = await filesOf(db.read, did, decodeCursor(body.cursor), body.limit + 1)
      const fileIds = found.map(file => file.id)
      const shown = fileIds.slice(0, body.limit)
      const replicas = await listReplicasOf(db.read, shown, { rseId, state: 'AVAILABLE' })
      const chosen = new Map<number, { row: ListedReplica; rse: Rse }>()
      for (const row of replicas) {
        const rse = rses.get(row.rse_id)
        if (rse !== undefined && !chosen.has(row.file_id)) chosen.set(row.file_id, { row, rse })
      }
      const groups = groupDirectories([...chosen.values()].map(({ row }) => row))
      const accesses = await Promise.all(
        groups.map(({ rseId: id, tops }) => {
          const rse = rses.get(id)
          if (rse === undefined) throw new Error(`storage ${id} is gone`)
          return personalAccess(context, rse, 'download', tops, body.key, signal)
        }),
      )
      const accessOf = new Map(
        groups.flatMap(({ rseId: id, tops }, i) => tops.map(top => [`${id} ${top}`, i] as const)),
      )
      const files = [...chosen.values()].map(({ row, rse }) => ({
        did: `${row.scope}:${row.file}`,
        url: replicaUrl(protocolOf(rse).url, row.directory, row.name),
        bytes: row.bytes,
        access: accessOf.get(`${rse.id} ${row.top}`) ?? 0,
        ...(row.adler32 === null ? {} : { adler32: row.adler32 }),
        ...(row.md5 === null ? {} : { md5: row.md5 }),
      }))
      const missing = shown.filter(id => !chosen.has(id))
      const unavailable = missing.length === 0 ? [] : await namesOf(db.read, missing)
      const last = shown.at(-1)
      const next = fileIds.length > body.limit && last !== undefined ? { next: encodeCursor(last) } : {}
      return { files, accesses, unavailable, ...next }
    },
  }
}
