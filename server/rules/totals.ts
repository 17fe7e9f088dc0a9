import { WaybillError } from '../../shared/domain/errors.ts'
import type { Quota } from '../accounts/quota.ts'
import type { Rse } from '../storages/directory.ts'
import { leftOutWords, refusalCode, weightOf } from './candidates.ts'
import type { LeftOut } from './select.ts'

/** What is asked for, by its totals: what can be refused at once, whatever its size. */
export interface Totals {
  readonly did: string
  readonly copies: number
  readonly bytes: number
  /** Of this and of what the same request asks for before it. */
  readonly requestBytes: number
  /** All of it has to be at one storage: grouping ALL, a dataset, a file. */
  readonly together: boolean
  readonly weight: string | null
  /** Storages that are not written to, and may keep what they hold of it. */
  readonly keep: ReadonlySet<number>
}

/**
 * Refuses what cannot be done, as far as totals tell: 409 COPIES_IMPOSSIBLE or QUOTA_EXCEEDED, with the storages that were left out
 * and by what. What is refused here no choice could satisfy; what is not may still turn out not to fit, dataset by dataset: how much
 * space a storage needs depends on what it holds already, which only a look at the files tells. Pure.
 */
export function demandPossible(totals: Totals, candidates: readonly Rse[], quota: Quota, field: string): void {
  const { did, copies, bytes, requestBytes, together } = totals
  const leftOut: LeftOut[] = []
  const possible: Rse[] = []
  for (const rse of candidates) {
    const most = Math.min(quota.left(rse.id), bytes)
    const why =
      !rse.availabilityWrite && !totals.keep.has(rse.id)
        ? 'NOT_WRITABLE'
        : weightOf(totals.weight, rse) <= 0
          ? 'NO_WEIGHT'
          : most < bytes && (together || most <= 0)
            ? 'QUOTA'
            : undefined
    if (why === undefined) possible.push(rse)
    else leftOut.push({ rseId: rse.id, why })
  }
  const nameOf = (rseId: number): string => candidates.find(({ id }) => id === rseId)?.name ?? ''
  const because = leftOut.length === 0 ? '' : `; ${leftOutWords(leftOut, nameOf)}`
  if (possible.length < copies) {
    const names = possible.map(rse => rse.name).join(', ')
    const storages = possible.length === 0 ? 'none' : `only ${names}`
    const message = `copies=${copies}, but of the storages that the expression names ${storages} can take ${did}${because}`
    const code = refusalCode(leftOut)
    throw new WaybillError(code, message, { status: 409, field: code === 'COPIES_IMPOSSIBLE' ? 'copies' : field })
  }
  // For another DID of the request others may be possible.
  const usable = candidates.filter(rse => rse.availabilityWrite || totals.keep.has(rse.id))
  const most = quota.most(
    usable.map(rse => rse.id),
    requestBytes,
  )
  if (most >= copies * requestBytes) return
  const message = `${copies} times ${requestBytes} bytes are asked for, but the account may lock no more than ${most} there${because}`
  throw new WaybillError('QUOTA_EXCEEDED', message, { status: 409, field })
}
