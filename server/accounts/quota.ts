import { type ExpressionRse, evaluateExpression, parseExpression } from '../storages/expression.ts'

/** What an account may lock at all the storages that an expression names together: the name of one is a limit of that one. */
export interface Limit {
  /** False: every account of the VO has it, at the storages that no limit of its own names. */
  readonly own: boolean
  readonly expression: string
  /** Null: without limit. */
  readonly bytes: number | null
}

export interface Usage {
  readonly rse_id: number
  readonly bytes: number
  /** Chosen for there, and not locked yet. */
  readonly reserved: number
}

/** What is left of one limit, at all of its storages. */
interface Counted {
  left: number
}

/**
 * What an account may still lock at each storage. Several limits may name one: the least counts. What no limit names is without limit:
 * who wants the opposite gives the VO the limit 0 over `*`.
 */
export class Quota {
  /** By storage. */
  readonly #limits = new Map<number, Counted[]>()

  constructor(
    limits: readonly Limit[],
    usage: readonly Usage[],
    rses: readonly (ExpressionRse & { readonly id: number })[],
  ) {
    const own = limits.filter(limit => limit.own).map(limit => ({ limit, ids: named(limit.expression, rses) }))
    const covered = new Set(own.flatMap(({ ids }) => ids))
    const common = limits
      .filter(limit => !limit.own)
      .map(limit => ({ limit, ids: named(limit.expression, rses).filter(id => !covered.has(id)) }))
    const used = new Map(usage.map(row => [row.rse_id, row.bytes + row.reserved]))
    for (const { limit, ids } of [...own, ...common]) {
      if (limit.bytes === null) continue
      const counted = { left: ids.reduce((left, id) => left - (used.get(id) ?? 0), limit.bytes) }
      for (const id of ids) this.#limits.set(id, [...this.#at(id), counted])
    }
  }

  #at(rseId: number): readonly Counted[] {
    return this.#limits.get(rseId) ?? []
  }

  /** Bytes, below 0 where more is locked than a limit that came later allows; `Infinity`: without limit. */
  left(rseId: number): number {
    return Math.min(Infinity, ...this.#at(rseId).map(({ left }) => left))
  }

  /** Whether so much may be locked at each of these storages: one limit may name several of them. */
  allows(rseIds: readonly number[], bytes: number): boolean {
    return [...this.#sums(rseIds, () => 1)].every(([limit, named]) => named * bytes <= limit.left)
  }

  /** No more than this can be locked at these storages together, with at most `each` bytes at one. An upper bound. */
  most(rseIds: readonly number[], each: number): number {
    const bound = (id: number): number => Math.max(0, Math.min(each, this.left(id)))
    const all = rseIds.reduce((total, id) => total + bound(id), 0)
    const named = [...this.#sums(rseIds, bound)]
    return Math.min(all, ...named.map(([limit, sum]) => Math.max(0, limit.left) + all - sum))
  }

  /** For each limit that names one of these storages: of those that it names. */
  #sums(rseIds: readonly number[], of: (rseId: number) => number): Map<Counted, number> {
    const sums = new Map<Counted, number>()
    for (const id of rseIds) {
      const value = of(id)
      for (const limit of this.#at(id)) sums.set(limit, (sums.get(limit) ?? 0) + value)
    }
    return sums
  }

  take(rseId: number, bytes: number): void {
    for (const limit of this.#at(rseId)) limit.left -= bytes
  }
}

/** A word that names nothing any more is no storage: the limit holds at the others, and `account limits` says so. */
function named(expression: string, rses: readonly (ExpressionRse & { readonly id: number })[]): number[] {
  const names = evaluateExpression(parseExpression(expression).tree, rses)
  return rses.filter(rse => names.has(rse.name)).map(rse => rse.id)
}
