import { parseDid } from '../../shared/domain/names.ts'
import type { Caller } from '../accounts/caller.ts'
import { demandPermission, type NamedScope } from '../accounts/permissions.ts'
import type { Executor } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { demandDirectories } from './directory-rights.ts'
import { directoryOf } from './register.ts'

/**
 * What is attached is copied by the rules on what it is attached to: who may make no rules in a scope shall not have them by
 * attaching its DIDs to a dataset of another. Throws 403 SCOPE_FORBIDDEN.
 */
export async function demandRuleElsewhere(
  executor: Executor,
  caller: Caller,
  parentScope: string,
  children: readonly NamedScope[],
): Promise<void> {
  const elsewhere = children.filter(({ scope }) => scope !== parentScope)
  await demandPermission(executor, caller, 'rule', elsewhere)
}

/** To register or upload files, where they are said to lie, and to attach them to a dataset. Throws 403 SCOPE_FORBIDDEN, 400 PATH_OUTSIDE_PREFIX. */
export async function demandRegistration(
  executor: Executor,
  caller: Caller,
  registration: {
    readonly rse: Rse
    readonly dataset: string | undefined
    readonly files: readonly { readonly did: string; readonly path?: string | undefined }[]
    /** Where the files begin in what the caller gave. Default 0. */
    readonly first?: number
  },
): Promise<void> {
  const { rse, dataset, files, first = 0 } = registration
  const named = files.map((file, i) => {
    const field = `files.${first + i}.did`
    return { scope: parseDid(file.did, field).scope, field }
  })
  const into = dataset === undefined ? undefined : parseDid(dataset, 'dataset').scope
  const all = into === undefined ? named : [...named, { scope: into, field: 'dataset' }]
  await demandPermission(executor, caller, 'write', all)
  if (into !== undefined) await demandRuleElsewhere(executor, caller, into, named)
  const places = files.flatMap(({ path }, i) => {
    const field = `files.${first + i}.path`
    return path === undefined ? [] : [{ directory: directoryOf(rse, path, field), field }]
  })
  await demandDirectories(executor, caller, rse, places)
}
