import { WaybillError } from '../../shared/domain/errors.ts'
import { parseDid } from '../../shared/domain/names.ts'
import { once } from '../accounts/idempotency.ts'
import { demandPermission, refusedScope } from '../accounts/permissions.ts'
import { type Sight, sees, sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import { ensureScopes, findDids, insertDids } from '../catalogue/did-store.ts'
import { demandDirectories } from '../catalogue/directory-rights.ts'
import { noteScope } from '../catalogue/directory-scope-store.ts'
import { ensureDirectories } from '../catalogue/replica-store.ts'
import { requireVo } from '../catalogue/routes.ts'
import type { Context } from '../context.ts'
import { decodeCursor, pageOf } from '../database/cursor.ts'
import type { Executor } from '../database/sql.ts'
import { grantFor, type TokenContext } from '../tokens/tokens.ts'
import {
  cancelImport,
  findImport,
  type ImportRow,
  insertImport,
  listImportProblems,
  listImports,
  resumeImport,
} from './store.ts'

type ImportHandlers = Pick<
  Handlers,
  'addImport' | 'listImports' | 'getImport' | 'listImportProblems' | 'cancelImport' | 'resumeImport'
>

/** A caller with an account. */
type Owner = Parameters<ImportHandlers['cancelImport']>[0]['caller']

export function importHandlers(context: TokenContext): ImportHandlers {
  const { db, storages, clock, wake } = context

  async function requireOwnImport(caller: Owner, id: number): Promise<ImportRow> {
    const row = await requireImport(db.read, sightOf(caller), id)
    if (row.account_id === caller.account.id) return row
    const { scope } = parseDid(row.dataset)
    if ((await refusedScope(db.read, caller, 'manage', [{ scope, field: 'id' }])) === undefined) return row
    const message = `import ${row.id} belongs to ${row.account}, and ${caller.account.name} may not manage the scope ${scope}`
    throw new WaybillError('FORBIDDEN', message, { status: 403 })
  }

  /** `change` is false where the import is done. */
  async function changeImport(
    { params, caller }: { params: { id: number }; caller: Owner },
    change: (executor: Executor, id: number, now: number) => Promise<boolean>,
    permission?: 'write',
  ) {
    const { id, dataset } = await requireOwnImport(caller, params.id)
    const changed = await db.write(async executor => {
      if (permission !== undefined) {
        await demandPermission(executor, caller, permission, [{ scope: parseDid(dataset).scope, field: 'id' }])
      }
      return change(executor, id, clock.now())
    })
    if (!changed) {
      throw new WaybillError('IMPORT_DONE', `import ${id} is done: import again to take over what is new`, {
        status: 409,
      })
    }
    return view(context, await requireImport(db.read, sightOf(caller), id))
  }

  return {
    async addImport(request) {
      const { body, caller } = request
      const { account } = caller
      const sight = sightOf(caller)
      const rse = await storages.byName(sight, body.rse)
      requireVo(rse, account.voId)
      const dataset = parseDid(body.dataset, 'dataset')
      const id = await once(context, 'addImport', request, async (executor, now) => {
        // Asked now: an import that was taken in goes on.
        await demandPermission(executor, caller, 'write', [{ scope: dataset.scope, field: 'dataset' }])
        const scopes = await ensureScopes(executor, account.voId, [dataset.scope])
        const scope_id = scopes.get(dataset.scope)
        if (scope_id === undefined) {
          throw new WaybillError('SCOPE_OF_OTHER_VO', `the scope ${dataset.scope} belongs to another VO`, {
            status: 403,
            field: 'dataset',
          })
        }
        const row = {
          scope_id,
          name: dataset.name,
          type: 'DATASET' as const,
          bytes: 0,
          files: 0,
          adler32: null,
          md5: null,
        }
        await insertDids(executor, [row], account.id, now)
        const [found] = await findDids(executor, [row])
        if (found?.type !== 'DATASET') {
          throw new WaybillError('DID_TYPE', `${body.dataset} is not a dataset`, { status: 409, field: 'dataset' })
        }
        // The grant comes before the directory's row: it refuses a path outside the storage's prefix.
        const grantId = await grantFor(executor, context.issuers, rse, 'list', [body.path], now)
        await demandDirectories(executor, caller, rse, [{ directory: body.path, field: 'path' }], { all: true })
        const directories = await ensureDirectories(executor, rse.id, [{ path: body.path, top: body.path }])
        const directoryId = directories.get(body.path)?.id ?? 0
        await noteScope(executor, scope_id, [directoryId])
        const job = {
          voId: account.voId,
          rseId: rse.id,
          directoryId,
          datasetId: found.id,
          accountId: account.id,
          grantId,
          checksum: body.checksum,
        }
        return insertImport(executor, job, now)
      })
      wake.notify('grants')
      wake.notify('queue')
      return view(context, await requireImport(db.read, sight, id))
    },
    async listImports({ query: { rse, state = '', cursor, limit }, caller }) {
      const sight = sightOf(caller)
      const rseId = rse === undefined ? 0 : (await storages.byName(sight, rse)).id
      const rows = await listImports(db.read, sight, { rseId, state, after: decodeCursor(cursor), limit: limit + 1 })
      const { items, ...next } = pageOf(
        rows,
        limit,
        row => row.id,
        row => view(context, row),
      )
      return { items: await Promise.all(items), ...next }
    },
    async getImport({ params, caller }) {
      return view(context, await requireImport(db.read, sightOf(caller), params.id))
    },
    async listImportProblems({ params, query: { cursor, limit }, caller }) {
      const { id: importId } = await requireImport(db.read, sightOf(caller), params.id)
      const rows = await listImportProblems(db.read, { importId, after: decodeCursor(cursor), limit: limit + 1 })
      return pageOf(
        rows,
        limit,
        row => row.id,
        ({ id: _, ...problem }) => problem,
      )
    },
    cancelImport: request => changeImport(request, cancelImport),
    async resumeImport(request) {
      // Its owner may have lost it since, or have cancelled for that.
      const resumed = await changeImport(request, resumeImport, 'write')
      wake.notify('queue')
      return resumed
    },
  }
}

/** Throws 404 IMPORT_UNKNOWN. */
export async function requireImport(executor: Executor, sight: Sight, id: number): Promise<ImportRow> {
  const row = await findImport(executor, id)
  if (row !== undefined && sees(sight, row.vo_id)) return row
  throw new WaybillError('IMPORT_UNKNOWN', `there is no import ${id}`, { status: 404, field: 'id' })
}

async function view({ storages, clock }: Context, row: ImportRow) {
  const { id, account, path, dataset, checksum, state, files, bytes, present, error } = row
  const waits = state === 'QUEUED' && row.not_before > clock.now()
  return {
    ...{ id, account, path, dataset, checksum, state, files, bytes, present },
    rse: (await storages.byId(row.rse_id)).name,
    leftOut: row.left_out,
    directories: { listed: row.directories, left: row.directories_left },
    ...(error === null ? {} : { error }),
    ...(waits ? { retryAt: row.not_before } : {}),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}
