import { WaybillError } from '../../shared/domain/errors.ts'
import { parseDid } from '../../shared/domain/names.ts'
import type { Caller } from '../accounts/caller.ts'
import { once } from '../accounts/idempotency.ts'
import { demandPermission } from '../accounts/permissions.ts'
import { sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import { filesOf } from '../catalogue/contents-store.ts'
import { requireOwn, requireVo } from '../catalogue/routes.ts'
import type { Context } from '../context.ts'
import { decodeCursor, pageOf } from '../database/cursor.ts'
import type { Executor } from '../database/sql.ts'
import { STAYS } from '../deletion/stays.ts'
import { type DeclaredFile, declareReplicas, type OwnedFile } from './declare.ts'
import { type ListedFault, listFaultsOf, scopesOf, setKept } from './declare-store.ts'

type FaultHandlers = Pick<Handlers, 'declareReplicas' | 'listFaults' | 'keepReplicas'>

/** A write transaction of so many takes a fraction of a second. */
const FILES_PER_TRANSACTION = 500

export function faultHandlers(context: Context): FaultHandlers {
  const { db, storages, clock, wake } = context

  return {
    async declareReplicas(request) {
      const { caller, body } = request
      const rse = await storages.byName(sightOf(caller), body.rse)
      requireVo(rse, caller.account.voId)
      const own = { rse, accountId: caller.account.id, demand: careOf(caller, body.last) }
      const results: DeclaredFile[] = []
      // In pieces, so that nobody waits long for the writer. Each is done once: said again later it might undo what came of it.
      for (let first = 0; first < body.files.length; first += FILES_PER_TRANSACTION) {
        const files = body.files.slice(first, first + FILES_PER_TRANSACTION)
        const piece = { ...body, files, first }
        results.push(
          ...(await once(context, 'declareReplicas', pieceOf(request, piece), (executor, now) =>
            declareReplicas(executor, { ...piece, ...own }, now),
          )),
        )
      }
      wake.notify('repairs')
      wake.notify('queue')
      return { results }
    },
    async listFaults({ query: { rse, cursor, limit }, caller }) {
      const sight = sightOf(caller)
      const names = new Map((await storages.seenBy(sight)).map(known => [known.id, known.name]))
      const rseId = rse === undefined ? undefined : (await storages.byName(sight, rse)).id
      const rows = await listFaultsOf(db.read, sight, { rseId, after: decodeCursor(cursor), limit: limit + 1 })
      return pageOf(
        rows,
        limit,
        row => row.id,
        row => viewFault(row, names),
      )
    },
    async keepReplicas({ body, caller }) {
      const sight = sightOf(caller)
      const rse = await storages.byName(sight, body.rse)
      requireVo(rse, caller.account.voId)
      const found = await requireOwn(db.read, sight, parseDid(body.did), caller.account.voId)
      if (found.type === 'CONTAINER') {
        throw new WaybillError('DID_TYPE', 'name its datasets one by one', { status: 400, field: 'did' })
      }
      let changed = 0
      for (let after = 0; ; ) {
        const files = (await filesOf(db.read, found, after, FILES_PER_TRANSACTION)).map(file => file.id)
        changed += await db.write(async executor => {
          const owned = await scopesOf(executor, files)
          await careOf(caller, !body.kept)(
            executor,
            owned.map(({ scope, owner_id: ownerId }) => ({ scope, ownerId, field: 'did' })),
          )
          return setKept(executor, rse.id, files, body.kept, clock.now())
        })
        after = files.at(-1) ?? 0
        if (found.type === 'FILE' || files.length < FILES_PER_TRANSACTION) return { changed }
      }
    },
  }
}

/** A piece of a request as one of its own. No caller's key has a space. */
function pieceOf<Piece extends { readonly first: number }>(
  { caller, idempotencyKey: key }: { readonly caller: Caller; readonly idempotencyKey?: string },
  body: Piece,
) {
  const own = { caller, body }
  return key === undefined ? own : { ...own, idempotencyKey: body.first === 0 ? key : `${key} ${body.first}` }
}

/**
 * Who may say what becomes of replicas of these files: who may write in their scopes. What lets the last copy go (`final`) others may say of
 * what is not theirs only where they manage: that may be data which rules of anybody hold. Throws 403 SCOPE_FORBIDDEN.
 */
function careOf(caller: Caller & { readonly account: { readonly id: number } }, final: boolean) {
  return async (executor: Executor, files: readonly OwnedFile[]): Promise<void> => {
    await demandPermission(executor, caller, 'write', files)
    if (!final) return
    const others = files.filter(({ ownerId }) => ownerId !== caller.account.id)
    await demandPermission(executor, caller, 'manage', others)
  }
}

function viewFault(row: ListedFault, names: ReadonlyMap<number, string>) {
  return {
    did: row.did,
    rse: names.get(row.rse_id) ?? '',
    state: row.state,
    locks: row.lock_count,
    code: row.code,
    message: row.message,
    at: row.at,
    ...(row.account === null ? {} : { by: row.account }),
    ...(row.transfer_id === null ? {} : { transfer: row.transfer_id }),
    ...(row.unconfirmed ? { stays: `UNCONFIRMED: ${STAYS.UNCONFIRMED}` } : {}),
  }
}
