import { parseDid } from '../../shared/domain/names.ts'
import type { ReplicaState } from '../../shared/domain/rule-state.ts'
import type { NamedScope } from '../accounts/permissions.ts'
import { holdFilesOf } from '../catalogue/hold-files.ts'
import type { Executor } from '../database/sql.ts'
import { summedByRule } from '../rules/lock-store.ts'
import { addToRules } from '../rules/store.ts'
import type { Rse } from '../storages/directory.ts'
import { type Declared, declarationOf, type Verdict } from './decision.ts'
import { type NamedFile, replicasNamed, statesOf } from './declare-store.ts'
import { lookAtOnce } from './look.ts'
import { condemnReplicas, confirmFaults, type Fault, giveUpReplicas, loseReplicas } from './store.ts'

export type GivenFile = { readonly did: string } | { readonly path: string }

/** Files in a scope that one account has made. */
export interface OwnedFile extends NamedScope {
  readonly ownerId: number
}

export interface Declaration {
  readonly rse: Rse
  readonly accountId: number
  /** Throws where the caller may not say so of these files. */
  readonly demand: (executor: Executor, files: readonly OwnedFile[]) => Promise<void>
  readonly as: Verdict
  readonly reason: string
  /** What is BAD may go, though it be all that is left. */
  readonly last: boolean
  readonly files: readonly GivenFile[]
  /** Where the files begin in what the caller gave, for the fields of errors. */
  readonly first: number
}

export interface DeclaredFile {
  readonly did?: string
  readonly path?: string
  readonly outcome: Declared['outcome'] | 'UNKNOWN'
  readonly state?: ReplicaState
  readonly message?: string
}

/** What somebody says of replicas at a storage, one by one; repeating it changes nothing. Answers in the order of the files. */
export async function declareReplicas(
  executor: Executor,
  declaration: Declaration,
  now: number,
): Promise<DeclaredFile[]> {
  const { rse, as, files, first, last } = declaration
  const named = files.map((file, i) => nameOf(file, i, first))
  const where = { rseId: rse.id, voId: rse.voId }
  const ids = (await replicasNamed(executor, where, named)).map(({ id }) => id)
  await holdFilesOf(executor, ids)
  // Not before: until they were held somebody else may have changed them, or taken them away.
  const found = await replicasNamed(executor, where, named)
  await declaration.demand(
    executor,
    found.map(({ position, scope, owner_id: ownerId }) => ({ scope, ownerId, field: `files.${first + position}` })),
  )
  const byPosition = new Map(found.map(row => [row.position, row]))
  const decided = new Map(found.map(({ id, state, at_fault }) => [id, declarationOf(as, state, Boolean(at_fault))]))
  await apply(executor, declaration, decided, now)
  const bad = as === 'BAD' ? those(decided, 'ALREADY') : []
  const confirmed = await confirmFaults(executor, bad, declaration.accountId)
  if (last) await giveUpReplicas(executor, bad)
  const looked = await lookAtOnce(executor, { vo_id: rse.voId, rse_id: rse.id }, those(decided, 'TO_BE_LOOKED_AT'), now)
  const states = await statesOf(executor, [...decided.keys()])
  return files.map((file, position) => {
    const row = byPosition.get(position)
    const declared = row && decided.get(row.id)
    if (row === undefined || declared === undefined) return { ...file, outcome: 'UNKNOWN' }
    const told = { ...file, state: states.get(row.id) ?? row.state }
    if (declared.outcome === 'REFUSED') return { ...told, ...declared }
    if (confirmed.has(row.id)) return { ...told, outcome: 'DECLARED' }
    const busy = declared.outcome === 'TO_BE_LOOKED_AT' && !looked.has(row.id)
    return busy
      ? { ...told, outcome: 'REFUSED', message: 'a worker is at it: try again when that is over' }
      : { ...told, outcome: declared.outcome }
  })
}

async function apply(
  executor: Executor,
  { accountId, as, reason, last }: Declaration,
  decided: ReadonlyMap<number, Declared>,
  now: number,
): Promise<void> {
  const faults: Fault[] = those(decided, 'DECLARED').map(replica_id => ({
    ...{ replica_id, transfer_id: null, account_id: accountId, expendable: last },
    ...{ code: `DECLARED_${as}`, message: reason === '' ? 'no reason was given' : reason },
  }))
  if (faults.length === 0) return
  const declare = as === 'BAD' ? condemnReplicas : loseReplicas
  await addToRules(executor, summedByRule(await declare(executor, faults, now)), now)
}

function those(decided: ReadonlyMap<number, Declared>, outcome: Declared['outcome']): number[] {
  return [...decided].filter(([, declared]) => declared.outcome === outcome).map(([id]) => id)
}

/** Throws 400 as `parseDid`. */
function nameOf(file: GivenFile, position: number, first: number): NamedFile {
  if ('path' in file) {
    const slash = file.path.lastIndexOf('/')
    const [directory, name] = [file.path.slice(0, slash), file.path.slice(slash + 1)]
    return { position, scope: '', name: '', directory, file: name }
  }
  const { scope, name } = parseDid(file.did, `files.${first + position}.did`)
  return { position, scope, name, directory: '', file: '' }
}
