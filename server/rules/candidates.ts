import { WaybillError } from '../../shared/domain/errors.ts'
import type { Quota } from '../accounts/quota.ts'
import type { Rse } from '../storages/directory.ts'
import { resolveExpression } from '../storages/expression.ts'
import { type LeftOut, type LeftOutWhy, type Selection, selectRses } from './select.ts'

/** What decides about a rule's storages. It is the rule's own: two alike cannot be, and a dry run of one decides as the rule will. */
export interface Choosing {
  readonly account_id: number
  readonly did_id: number
  readonly expression: string
  readonly copies: number
  readonly weight: string | null
}

/** A storage may have left the expression since the rule was taken in: the rule says so, and keeps what it has. */
export function candidatesOf(
  expression: string,
  rses: readonly Rse[],
): { candidates: readonly Rse[]; error: string | null } {
  try {
    const names = new Set(resolveExpression(expression, [...rses]))
    return { candidates: rses.filter(rse => names.has(rse.name)), error: null }
  } catch (error) {
    if (error instanceof WaybillError) return { candidates: [], error: `${error.code}: ${error.message}` }
    throw error
  }
}

/** What is to be placed: a dataset, a file, or all of a rule. */
export interface Unit {
  readonly id: number
  readonly bytes: number
}

/** Of a unit, what a storage has and what is on its way there. Bytes. */
export interface Holding {
  readonly unit_id: number
  readonly rse_id: number
  readonly held: number
  readonly coming: number
}

const NONE: ReadonlySet<number> = new Set()

/** What a choice goes by beside the rule. */
export interface Facts {
  readonly quota: Quota
  /** Bytes that may still come to a storage; one that is absent has room for anything. */
  readonly rooms: Map<number, number>
  /** What is not held against the quota: the rule that this one replaces has it there. */
  readonly isFree?: ((unitId: number, rseId: number) => boolean) | undefined
}

/** Chooses for one unit after the other: what is taken of quota and space for one is not there for the next. */
export class Chooser {
  readonly #rule: Choosing
  readonly #candidates: readonly Rse[]
  readonly #quota: Quota
  readonly #isFree: Facts['isFree']
  readonly #rooms: Map<number, number>
  readonly #holdings = new Map<number, Map<number, Holding>>()

  constructor(rule: Choosing, candidates: readonly Rse[], facts: Facts) {
    this.#rule = rule
    this.#candidates = candidates
    this.#quota = facts.quota
    this.#isFree = facts.isFree
    this.#rooms = facts.rooms
  }

  /** What storages hold of the units that are chosen for next, and of no others. */
  know(holdings: readonly Holding[]): void {
    this.#holdings.clear()
    for (const holding of holdings) {
      const unit = this.#holdings.get(holding.unit_id)
      if (unit === undefined) this.#holdings.set(holding.unit_id, new Map([[holding.rse_id, holding]]))
      else unit.set(holding.rse_id, holding)
    }
  }

  /** As `selectRses`, but for the storages `except`; nothing is taken yet. */
  select(unit: Unit, chosen: ReadonlySet<number>, except: ReadonlySet<number> = NONE): Selection {
    const { account_id, did_id, expression, copies } = this.#rule
    const held = this.#holdings.get(unit.id)
    const possible = this.#candidates.filter(rse => !except.has(rse.id))
    const options = possible.map(rse => ({
      rseId: rse.id,
      writable: rse.availabilityWrite,
      bytesHeld: held?.get(rse.id)?.held ?? 0,
      bytesComing: held?.get(rse.id)?.coming ?? 0,
      weight: weightOf(this.#rule.weight, rse),
      quotaLeft: this.#isFree?.(unit.id, rse.id) ? Infinity : this.#quota.left(rse.id),
      spaceLeft: this.#rooms.get(rse.id) ?? Infinity,
    }))
    const seed = `${account_id}:${did_id}:${expression}:${copies}:${unit.id}`
    return selectRses(options, chosen, { copies, bytes: unit.bytes }, seed, rseIds => this.mayTake(rseIds, unit))
  }

  /** False when the account may not lock so much more at each of these. */
  mayTake(rseIds: readonly number[], unit: Unit): boolean {
    const counted = rseIds.filter(rseId => !this.#isFree?.(unit.id, rseId))
    return this.#quota.allows(counted, unit.bytes)
  }

  take(unit: Unit, rseId: number): void {
    this.#quota.take(rseId, unit.bytes)
    const room = this.#rooms.get(rseId)
    if (room === undefined) return
    const holding = this.#holdings.get(unit.id)?.get(rseId)
    this.#rooms.set(rseId, room - Math.max(0, unit.bytes - (holding?.held ?? 0) - (holding?.coming ?? 0)))
  }
}

/** Of a storage by the attribute that a rule names; 0 where it has none, or one that is no number. */
export function weightOf(attribute: string | null, rse: Rse): number {
  if (attribute === null) return 1
  const value = Number(rse.attributes[attribute] ?? 0)
  return Number.isFinite(value) ? value : 0
}

const WORDS: Readonly<Record<LeftOutWhy, string>> = {
  NOT_WRITABLE: 'not writable now',
  NO_WEIGHT: 'without the weight that the rule names',
  QUOTA: 'above the quota of the account',
  NO_SPACE: 'without the space',
}
/** Storages that are named for each reason. */
const MOST_NAMED = 10

/** Which storages were left out, and by what: `A, B: above the quota of the account; C: not writable now`. Pure. */
export function leftOutWords(leftOut: readonly LeftOut[], nameOf: (rseId: number) => string): string {
  const names = new Map<LeftOutWhy, Set<string>>()
  for (const { rseId, why } of leftOut) names.set(why, (names.get(why) ?? new Set()).add(nameOf(rseId)))
  return [...names]
    .map(([why, all]) => {
      const shown = [...all].slice(0, MOST_NAMED)
      const more = all.size > shown.length ? ` and ${all.size - shown.length} more` : ''
      return `${shown.join(', ')}${more}: ${WORDS[why]}`
    })
    .join('; ')
}

/** The code of a refusal: what kept out every storage, or that there are too few. */
export function refusalCode(leftOut: readonly LeftOut[]): 'QUOTA_EXCEEDED' | 'NO_SPACE' | 'COPIES_IMPOSSIBLE' {
  const reasons = new Set(leftOut.map(({ why }) => why))
  if (reasons.has('QUOTA')) return 'QUOTA_EXCEEDED'
  return reasons.has('NO_SPACE') ? 'NO_SPACE' : 'COPIES_IMPOSSIBLE'
}

/** Why datasets or files have fewer copies than asked for: `CODE: words`; `short`: how many, as far as was looked. Pure. */
export function shortWords(
  what: 'dataset' | 'file',
  { short, further }: { readonly short: number; readonly further: boolean },
  leftOut: readonly LeftOut[],
  rses: readonly Rse[],
): string {
  const nameOf = (rseId: number): string => rses.find(rse => rse.id === rseId)?.name ?? `storage ${rseId}`
  const those = `${further ? 'at least ' : ''}${short === 1 ? `1 ${what} has` : `${short} ${what}s have`}`
  const because = leftOut.length === 0 ? 'the expression names no other storage' : leftOutWords(leftOut, nameOf)
  return `${refusalCode(leftOut)}: ${those} fewer copies than asked for; ${because}`
}
