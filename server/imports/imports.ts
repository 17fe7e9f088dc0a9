import { WaybillError } from '../../shared/domain/errors.ts'
import { checkName, parseDid } from '../../shared/domain/names.ts'
import { once } from '../accounts/idempotency.ts'
import { demandPermission } from '../accounts/permissions.ts'
import { EVERYTHING, type Sight, sees, sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import { ensureScopes, findDids, insertDids } from '../catalogue/did-store.ts'
import { type GivenFile, registerFiles } from '../catalogue/register.ts'
import { ensureDirectories } from '../catalogue/replica-store.ts'
import { requireVo } from '../catalogue/routes.ts'
import type { Context } from '../context.ts'
import type { Executor } from '../database/sql.ts'
import { grantFor, type TokenContext } from '../tokens/tokens.ts'
import { advanceImport, findImport, type HeldImport, type ImportRow, insertImport } from './store.ts'

type ImportHandlers = Pick<Handlers, 'addImport' | 'getImport'>

export function importHandlers(context: TokenContext): ImportHandlers {
  const { storages } = context

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
        const directories = await ensureDirectories(executor, rse.id, [{ path: body.path, top: body.path }])
        const directoryId = directories.get(body.path)?.id ?? 0
        const job = {
          voId: account.voId,
          rseId: rse.id,
          directoryId,
          datasetId: found.id,
          accountId: account.id,
          grantId,
        }
        return insertImport(executor, job, now)
      })
      context.wake.notify('grants')
      context.wake.notify('queue')
      return view(context, await requireImport(context, sight, id))
    },
    async getImport({ params, caller }) {
      return view(context, await requireImport(context, sightOf(caller), params.id))
    },
  }
}

async function requireImport(context: Context, sight: Sight, id: number): Promise<ImportRow> {
  const row = await findImport(context.db.read, id)
  if (row !== undefined && sees(sight, row.vo_id)) return row
  throw new WaybillError('IMPORT_UNKNOWN', `there is no import ${id}`, { status: 404, field: 'id' })
}

async function view(context: Context, row: ImportRow) {
  const rse = await context.storages.byId(row.rse_id)
  const { id, path, dataset, state, files, bytes, error } = row
  return { id, rse: rse.name, path, dataset, state, files, bytes, ...(error === null ? {} : { error }) }
}

export interface FoundFiles {
  readonly sessionId: number
  readonly fence: number
  readonly part: number
  readonly files: readonly { path: string; bytes: number; adler32?: string | undefined; md5?: string | undefined }[]
  readonly done: boolean
  readonly error?: string | undefined
}

/**
 * Registers what a worker found. A file's name is the dataset's name and its path below the imported directory, since names
 * are unique in a scope; files whose names no DID can have are left out, and the import says so. A part that was taken before
 * changes nothing: its answer was lost. Throws 409 IMPORT_LOST, or IMPORT_PART_MISSING when one before it was never taken.
 */
export async function takeFoundFiles(context: Context, importId: number, found: FoundFiles): Promise<void> {
  // Session and fence say whether it is the worker's: an account that it has besides is nothing to it.
  const job = await requireImport(context, EVERYTHING, importId)
  const rse = await context.storages.byId(job.rse_id)
  const dataset = parseDid(job.dataset)
  const good: GivenFile[] = []
  const bad: string[] = []
  for (const { path, ...file } of found.files) {
    const name = `${dataset.name}/${path}`
    if (checkName('did', name) === undefined)
      good.push({ ...file, did: `${dataset.scope}:${name}`, path: `${job.path}/${path}` })
    else bad.push(path)
  }
  const leftOut =
    bad.length === 0
      ? null
      : `left out, since no DID can have such a name: ${bad
          .slice(0, 5)
          .map(path => JSON.stringify(path))
          .join(', ')}`
  const step = {
    files: good.length,
    bytes: good.reduce((sum, file) => sum + file.bytes, 0),
    state: found.error !== undefined ? ('FAILED' as const) : found.done ? ('DONE' as const) : ('LISTING' as const),
    error: found.error ?? leftOut,
  }
  const held = { id: importId, sessionId: found.sessionId, fence: found.fence, part: found.part }
  const now = context.clock.now()
  const register = async (executor: Executor): Promise<boolean> => {
    if (!(await advanceImport(executor, held, step, now))) return false
    const place = { rse, accountId: job.account_id, dataset: job.dataset, top: job.path }
    if (good.length > 0) await registerFiles(executor, { ...place, files: good, state: 'AVAILABLE', now })
    return true
  }
  const taken = await context.db.write(register).catch((error: unknown) => {
    if (!(error instanceof WaybillError)) throw error
    // The catalogue contradicts what lies there: only a person can say which is right.
    const failed = { files: 0, bytes: 0, state: 'FAILED' as const, error: `${error.code}: ${error.message}` }
    return context.db.write(executor => advanceImport(executor, held, failed, now))
  })
  if (!taken) demandTaken(await requireImport(context, EVERYTHING, importId), held)
  context.wake.notify('rules')
}

/** Of a part that was not next: whether it was taken before. Throws otherwise. */
function demandTaken(row: ImportRow, { sessionId, fence, part }: HeldImport): void {
  const same = row.session_id === sessionId && row.fence === fence
  if (same && part <= row.part) return
  if (same && row.state === 'LISTING') {
    const message = `part ${part} of import ${row.id} came after part ${row.part}: hand in part ${row.part + 1} first`
    throw new WaybillError('IMPORT_PART_MISSING', message, { status: 409, field: 'part' })
  }
  const message = `import ${row.id} is not held under this session and fence`
  throw new WaybillError('IMPORT_LOST', message, { status: 409 })
}
