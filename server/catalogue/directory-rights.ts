import { WaybillError } from '../../shared/domain/errors.ts'
import { actorOf, type Caller } from '../accounts/caller.ts'
import { refusedScope } from '../accounts/permissions.ts'
import type { Executor } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { exactly, type NameRange, scopesAround, scopesInside } from '../storages/paths.ts'
import { refusedAmong, refusedAt, scopesAmong } from './directory-scope-store.ts'

/** A directory at a storage, and the field of the request that names it. */
export interface NamedDirectory {
  /** Absolute, at or below the storage's prefix. */
  readonly directory: string
  readonly field: string
}

type Place = Pick<Rse, 'id' | 'voId' | 'name' | 'prefix' | 'layout'>

/**
 * The layout gives these directories to scopes in which the caller may write, or to none: an admin may have all. Throws 403
 * SCOPE_FORBIDDEN.
 */
async function demandLayout(
  executor: Executor,
  caller: Caller,
  rse: Place,
  named: readonly NamedDirectory[],
): Promise<void> {
  const around = named.flatMap(({ directory, field }) =>
    scopesAround(rse, directory).map(scope => ({ scope, field, directory })),
  )
  const refused = await refusedScope(executor, caller, 'write', around)
  if (refused !== undefined) throw forbidden(caller, rse, refused.scope, at(named, refused.field))
}

/**
 * To say that files lie in these directories: neither the layout, nor what was said of them or the directories above, gives them to a
 * scope in which the caller may not write; nor, below them, what was said. `all`: whatever lies below them is taken, so the layout's
 * count there too. Throws 403 SCOPE_FORBIDDEN.
 */
export async function demandDirectories(
  executor: Executor,
  caller: Caller,
  rse: Place,
  named: readonly NamedDirectory[],
  { all = false }: { readonly all?: boolean } = {},
): Promise<void> {
  const { admin, account } = caller
  if (admin || account === undefined || named.length === 0) return
  await demandLayout(executor, caller, rse, named)
  const ranges = (of: (directory: string) => NameRange[]) =>
    named.flatMap(({ directory }, position) => of(directory).map(range => ({ position, ...range })))
  const inside = all
    ? await refusedAmong(
        executor,
        account,
        ranges(directory => scopesInside(rse, directory)),
      )
    : undefined
  const refused =
    inside ??
    (await refusedAt(
      executor,
      account,
      rse.id,
      ranges(directory => pathsAt(rse, directory)),
    ))
  if (refused !== undefined) throw forbidden(caller, rse, refused.name, named[refused.position])
}

/**
 * To be given a token for these directories: what lay there when a path was given may be others' since. Where the layout has nobody's
 * directory, what was said to lie there counts. Throws 409 PATH_TOO_WIDE, 403 SCOPE_FORBIDDEN.
 */
export async function demandTops(
  executor: Executor,
  caller: Caller,
  rse: Place,
  named: readonly NamedDirectory[],
): Promise<void> {
  await demandNarrow(executor, rse, named)
  await demandLayout(executor, caller, rse, named)
  const names = named.flatMap(({ directory }, position) =>
    scopesAround(rse, directory).map(name => ({ position, ...exactly(name) })),
  )
  const owned = new Set((await scopesAmong(executor, rse.voId, names)).map(({ position }) => position))
  await demandDirectories(
    executor,
    caller,
    rse,
    named.filter((_, position) => !owned.has(position)),
  )
}

/** The directory, those above it below the prefix, and all below it. */
function pathsAt({ prefix }: Place, directory: string): NameRange[] {
  const ranges: NameRange[] = [{ low: `${directory}/`, high: `${directory}0` }]
  for (let path = directory; path.length > prefix.length; path = path.slice(0, path.lastIndexOf('/'))) {
    ranges.push(exactly(path))
  }
  return ranges
}

/** A token for such a directory would open more than what lies there: why not, by directory. Absolute paths. */
export async function tooWide(
  executor: Executor,
  rse: Place,
  directories: readonly string[],
): Promise<Map<string, string>> {
  const distinct = [...new Set(directories)]
  const advice = 'files need a directory of their own, two below the prefix'
  const reasons = new Map(
    distinct
      .filter(directory => directory === rse.prefix)
      .map(directory => [directory, `a token for ${directory} would open all of ${rse.name}: ${advice}`]),
  )
  const ranges = distinct.flatMap((directory, position) =>
    reasons.has(directory) ? [] : scopesInside(rse, directory).map(range => ({ position, ...range })),
  )
  const found = ranges.length === 0 ? [] : await scopesAmong(executor, rse.voId, ranges)
  for (const { position, name } of found) {
    const directory = distinct[position] ?? ''
    const message = `a token for ${directory} would open all that the scope ${name} has at ${rse.name}: ${advice}`
    reasons.set(directory, message)
  }
  return reasons
}

/** Throws 409 PATH_TOO_WIDE. */
export async function demandNarrow(executor: Executor, rse: Place, named: readonly NamedDirectory[]): Promise<void> {
  const reasons = await tooWide(
    executor,
    rse,
    named.map(({ directory }) => directory),
  )
  const first = named.find(({ directory }) => reasons.has(directory))
  if (first === undefined) return
  const message = reasons.get(first.directory) ?? ''
  throw new WaybillError('PATH_TOO_WIDE', message, { status: 409, field: first.field })
}

function at(named: readonly NamedDirectory[], field: string): NamedDirectory | undefined {
  return named.find(one => one.field === field)
}

function forbidden(caller: Caller, { name }: Place, scope: string, place: NamedDirectory | undefined): WaybillError {
  const { directory = '', field = '' } = place ?? {}
  const message = `${directory} at ${name} is a place of the scope ${scope}, in which ${actorOf(caller)} may not write: name another, or ask for the permission \`write\` there`
  return new WaybillError('SCOPE_FORBIDDEN', message, { status: 403, field })
}
