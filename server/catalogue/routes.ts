import type { Reply } from '../../shared/contract/route.ts'
import type { Routes } from '../../shared/contract/routes.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { type Did, formatDid, parseDid } from '../../shared/domain/names.ts'
import { once } from '../accounts/idempotency.ts'
import { demandPermission } from '../accounts/permissions.ts'
import { type Sight, sees, sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { decodeCursor, decodeTextCursor, encodeCursor, pageOf } from '../database/cursor.ts'
import type { Executor } from '../database/sql.ts'
import { STAYS, type StaysCode, staysFor } from '../deletion/stays.ts'
import { factsOfUnlocked } from '../deletion/store.ts'
import { reevaluateRules, shrinkRules } from '../rules/reevaluate.ts'
import { protocolOf, type Rse } from '../storages/directory.ts'
import { replicaUrl } from '../storages/paths.ts'
import {
  ancestors,
  deleteContents,
  filesOf,
  holdChildren,
  holdContents,
  insertContents,
  listContentsOf,
  totalsBelow,
} from './contents-store.ts'
import {
  type DidRow,
  ensureScopes,
  findDid,
  findDids,
  findDidsNamed,
  insertDids,
  listDidsOfScope,
  type NamedDid,
  setDidOpen,
} from './did-store.ts'
import { demandRegistration, demandRuleElsewhere } from './permitted.ts'
import { registerFiles } from './register.ts'
import { type ListedReplica, listReplicasOf } from './replica-list.ts'

type CatalogueHandlers = Pick<
  Handlers,
  | 'addDids'
  | 'listDids'
  | 'getDid'
  | 'setOpen'
  | 'attach'
  | 'detach'
  | 'listContents'
  | 'registerReplicas'
  | 'listReplicas'
>

type DidView = Reply<Routes['getDid']>

/** A write transaction of so many takes about a quarter of a second on a busy machine. */
const FILES_PER_TRANSACTION = 1_000

export function catalogueHandlers(context: Context): CatalogueHandlers {
  const { db, storages } = context

  return {
    async addDids(request) {
      const { account } = request.caller
      const given = request.body.dids.map((entry, i) => ({ ...entry, ...parseDid(entry.did, `dids.${i}.did`) }))
      const named = given.map(({ scope }, i) => ({ scope, field: `dids.${i}.did` }))
      return once(context, 'addDids', request, async (executor, now) => {
        await demandPermission(executor, request.caller, 'write', named)
        const scopes = await ensureScopes(
          executor,
          account.voId,
          given.map(entry => entry.scope),
        )
        const rows = given.map((entry, i) => {
          const scope_id = scopes.get(entry.scope)
          if (scope_id === undefined) throw foreignScope(entry.scope, `dids.${i}.did`)
          return { scope_id, name: entry.name, type: entry.type, bytes: 0, files: 0, adler32: null, md5: null }
        })
        const created = await insertDids(executor, rows, account.id, now)
        for (const found of await findDids(executor, rows)) {
          const asked = given[found.position]
          if (asked === undefined || asked.type === found.type) continue
          const message = `${asked.did} is a ${found.type.toLowerCase()} already`
          throw new WaybillError('DID_TYPE', message, { status: 409, field: `dids.${found.position}.did` })
        }
        return { created }
      })
    },
    async listDids({ query: { scope, prefix, type, cursor, limit }, caller }) {
      const filter = { scope, prefix: prefix ?? '', type, after: decodeTextCursor(cursor), limit: limit + 1 }
      const rows = await listDidsOfScope(db.read, sightOf(caller), filter)
      const view = await viewer(db.read, rows)
      return pageOf(rows, limit, row => row.name, view)
    },
    async getDid({ params, caller }) {
      return viewOf(db.read, await requireDid(db.read, sightOf(caller), params))
    },
    async setOpen({ params, body, caller }) {
      const did = await requireOwn(db.read, sightOf(caller), params, caller.account.voId)
      if (did.type === 'FILE') throw new WaybillError('DID_TYPE', 'a file is neither open nor closed', { status: 409 })
      await db.write(async executor => {
        await demandPermission(executor, caller, 'write', [{ scope: did.scope, field: 'scope' }])
        await setDidOpen(executor, did.id, body.open)
      })
      return viewOf(db.read, { ...did, is_open: body.open })
    },
    async attach({ params, body, caller }) {
      const sight = sightOf(caller)
      const attached = await db.write(async executor => {
        const parent = await requireOwn(executor, sight, params, caller.account.voId)
        await demandPermission(executor, caller, 'write', [{ scope: parent.scope, field: 'scope' }])
        const others = body.dids.map((text, i) => ({ scope: parseDid(text, `dids.${i}`).scope, field: `dids.${i}` }))
        await demandRuleElsewhere(executor, caller, parent.scope, others)
        const open = await holdContents(executor, parent)
        const children = await childrenOf(executor, sight, { ...parent, is_open: open }, body.dids)
        await holdChildren(executor, parent, children)
        const ids = await insertContents(executor, parent.id, children)
        if (ids.length > 0) await reevaluateRules(executor, parent, ids)
        return ids.length
      })
      context.wake.notify('rules')
      return { attached }
    },
    async detach({ params, body, caller }) {
      const sight = sightOf(caller)
      const parent = await requireOwn(db.read, sight, params, caller.account.voId)
      await demandPermission(db.read, caller, 'write', [{ scope: parent.scope, field: 'scope' }])
      requireOpen(parent)
      const children = await requireNamed(db.read, sight, body.dids)
      let detached = 0
      // In pieces, as what is registered.
      for (let first = 0; first < children.length; first += FILES_PER_TRANSACTION) {
        const some = children.slice(first, first + FILES_PER_TRANSACTION).map(child => child.id)
        detached += await db.write(executor => detachFrom(executor, parent, some))
      }
      context.wake.notify('rules')
      return { detached }
    },
    async listContents({ params, query: { cursor, limit }, caller }) {
      const did = await requireDid(db.read, sightOf(caller), params)
      const rows = await listContentsOf(db.read, did.id, decodeCursor(cursor), limit + 1)
      const view = await viewer(db.read, rows)
      return pageOf(rows, limit, row => row.id, view)
    },
    async registerReplicas(request) {
      const { account } = request.caller
      const rse = await storages.byName(sightOf(request.caller), request.body.rse)
      requireVo(rse, account.voId)
      const { dataset, files } = request.body
      const register = async (executor: Executor, first: number, now: number) => {
        const some = files.slice(first, first + FILES_PER_TRANSACTION)
        await demandRegistration(executor, request.caller, { rse, dataset, files: some, first })
        const registration = {
          rse,
          accountId: account.id,
          dataset,
          files: some,
          first,
          state: 'AVAILABLE' as const,
          now,
        }
        return registerFiles(executor, registration)
      }
      // In pieces, so that nobody waits long for the writer. Each may be repeated: after an error what came before is there.
      const totals = { files: files.length, created: 0, attached: 0 }
      let first = 0
      for (; first + FILES_PER_TRANSACTION < files.length; first += FILES_PER_TRANSACTION) {
        const piece = await db.write(executor => register(executor, first, context.clock.now()))
        totals.created += piece.created
        totals.attached += piece.attached
      }
      const answer = await once(context, 'registerReplicas', request, async (executor, now) => {
        const { created, attached } = await register(executor, first, now)
        return { ...totals, created: totals.created + created, attached: totals.attached + attached }
      })
      context.wake.notify('rules')
      return answer
    },
    async listReplicas({ query: { did, rse, state, cursor, limit }, caller }) {
      const sight = sightOf(caller)
      const found = await requireDid(db.read, sight, parseDid(did))
      if (found.type === 'CONTAINER') {
        throw new WaybillError('DID_TYPE', 'ask for the replicas of a dataset or file', { status: 400, field: 'did' })
      }
      const rses = new Map((await storages.seenBy(sight)).map(known => [known.id, known]))
      const rseId = rse === undefined ? undefined : (await storages.byName(sight, rse)).id
      const files = (await filesOf(db.read, found, decodeCursor(cursor), limit + 1)).map(file => file.id)
      const shown = files.slice(0, limit)
      const replicas = await listReplicasOf(db.read, shown, { rseId, state })
      const stays = await staysOf(db.read, replicas, context.clock.now())
      const items = replicas.map(row => viewReplica(row, rses.get(row.rse_id), stays.get(row.id)))
      const last = shown.at(-1)
      return files.length > limit && last !== undefined ? { items, next: encodeCursor(last) } : { items }
    },
  }
}

/** How many were attached. Throws 409 DID_CLOSED. */
async function detachFrom(executor: Executor, parent: DidRow, childIds: readonly number[]): Promise<number> {
  requireOpen({ ...parent, is_open: await holdContents(executor, parent) })
  const detached = await deleteContents(executor, parent.id, childIds)
  if (detached.length > 0) await shrinkRules(executor, parent.id, detached)
  return detached.length
}

/** Throws 404 DID_UNKNOWN. */
export async function requireDid(executor: Executor, sight: Sight, did: Did, field = 'did'): Promise<DidRow> {
  const row = await findDid(executor, did)
  if (row !== undefined && sees(sight, row.vo_id)) return row
  throw new WaybillError('DID_UNKNOWN', `there is no DID ${formatDid(did)}`, { status: 404, field })
}

/** Throws 404 DID_UNKNOWN and 403 SCOPE_OF_OTHER_VO. */
export async function requireOwn(executor: Executor, sight: Sight, did: Did, voId: number): Promise<DidRow> {
  const row = await requireDid(executor, sight, did)
  if (row.vo_id === voId) return row
  throw foreignScope(did.scope, 'scope')
}

export function requireVo(rse: Rse, voId: number): void {
  if (rse.voId === voId) return
  throw new WaybillError('RSE_OF_OTHER_VO', `the storage ${rse.name} serves another VO`, { status: 403, field: 'rse' })
}

function foreignScope(scope: string, field: string): WaybillError {
  return new WaybillError('SCOPE_OF_OTHER_VO', `the scope ${scope} belongs to another VO`, { status: 403, field })
}

/** The keys of what is to be attached, when all of it may be: inside the transaction that attaches. */
async function childrenOf(
  executor: Executor,
  sight: Sight,
  parent: DidRow,
  dids: readonly string[],
): Promise<number[]> {
  requireOpen(parent)
  const name = `${parent.scope}:${parent.name}`
  const children = await requireNamed(executor, sight, dids)
  const above = new Set(parent.type === 'CONTAINER' ? await ancestors(executor, parent.id) : [])
  return children.map((child, i) => {
    const field = `dids.${i}`
    const text = dids[i] ?? ''
    if (child.vo_id !== parent.vo_id) throw foreignScope(parseDid(text).scope, field)
    if ((parent.type === 'DATASET') !== (child.type === 'FILE')) {
      const message = `${text} is a ${child.type.toLowerCase()}: datasets hold files, containers hold datasets and containers`
      throw new WaybillError('DID_TYPE', message, { status: 409, field })
    }
    if (above.has(child.id)) {
      const message = `${text} is at or above ${name}: that would be a circle`
      throw new WaybillError('DID_CIRCLE', message, { status: 409, field })
    }
    return child.id
  })
}

/** Throws 409 DID_TYPE, DID_CLOSED. */
function requireOpen({ scope, name, type, is_open }: DidRow): void {
  if (type === 'FILE')
    throw new WaybillError('DID_TYPE', `${scope}:${name} is a file: it holds nothing`, { status: 409 })
  if (is_open) return
  throw new WaybillError('DID_CLOSED', `${scope}:${name} is closed: open it first`, { status: 409 })
}

/** All that were named, in their order. Throws 404 DID_UNKNOWN. */
async function requireNamed(executor: Executor, sight: Sight, dids: readonly string[]): Promise<NamedDid[]> {
  const found = await findDidsNamed(
    executor,
    dids.map((text, i) => parseDid(text, `dids.${i}`)),
  )
  const byPosition = new Map(found.map(row => [row.position, row]))
  return dids.map((text, i) => {
    const row = byPosition.get(i)
    if (row !== undefined && sees(sight, row.vo_id)) return row
    throw new WaybillError('DID_UNKNOWN', `there is no DID ${text}`, { status: 404, field: `dids.${i}` })
  })
}

/** How to show these DIDs: what is below containers is added up for all of them at once. */
async function viewer(executor: Executor, rows: readonly DidRow[]): Promise<(row: DidRow) => DidView> {
  const containers = rows.filter(({ type }) => type === 'CONTAINER').map(({ id }) => id)
  const totals = await totalsBelow(executor, containers)
  return row => ({
    did: `${row.scope}:${row.name}`,
    type: row.type,
    bytes: totals.get(row.id)?.bytes ?? row.bytes,
    files: totals.get(row.id)?.files ?? row.files,
    open: Boolean(row.is_open),
    account: row.account,
    createdAt: row.created_at,
    ...(row.adler32 === null ? {} : { adler32: row.adler32 }),
    ...(row.md5 === null ? {} : { md5: row.md5 }),
  })
}

async function viewOf(executor: Executor, row: DidRow): Promise<DidView> {
  return (await viewer(executor, [row]))(row)
}

/** Why those of these replicas that no rule asks for any more are there all the same. */
async function staysOf(read: Executor, rows: readonly ListedReplica[], now: number): Promise<Map<number, StaysCode>> {
  const unlocked = rows.filter(row => row.lock_count === 0 && row.tombstone_at !== null).map(({ id }) => id)
  const facts = await factsOfUnlocked(read, unlocked, now)
  return new Map(
    facts.flatMap(row => {
      const code = staysFor(row)
      return code === undefined ? [] : [[row.id, code] as const]
    }),
  )
}

function viewReplica(row: ListedReplica, rse: Rse | undefined, stays: StaysCode | undefined) {
  return {
    did: `${row.scope}:${row.file}`,
    rse: rse?.name ?? '',
    state: row.state,
    bytes: row.bytes,
    url: rse === undefined ? '' : replicaUrl(protocolOf(rse).url, row.directory, row.name),
    locks: row.lock_count,
    kept: Boolean(row.kept),
    ...(row.adler32 === null ? {} : { adler32: row.adler32 }),
    ...(row.md5 === null ? {} : { md5: row.md5 }),
    ...(row.fault === null ? {} : { fault: row.fault }),
    ...(row.fault_at === null ? {} : { faultAt: row.fault_at }),
    ...(row.fault_by === null ? {} : { faultBy: row.fault_by }),
    ...(row.tombstone_at === null ? {} : { tombstoneAt: row.tombstone_at }),
    ...(stays === undefined ? {} : { stays: `${stays}: ${STAYS[stays]}` }),
  }
}
