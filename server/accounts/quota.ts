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

/**
 * What an account may still lock at each storage. Several limits may name one: the least counts. What no limit names is without limit:
 * who wants the opposite gives the VO the limit 0 over `*`.
 */
export class Quota {
  readonly #limits: readonly { readonly rseIds: ReadonlySet<number>; left: number }[]

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
    this.#limits = [...own, ...common].flatMap(({ limit: { bytes }, ids }) => {
      if (bytes === null) return []
      const rseIds = new Set(ids)
      const used = usage.filter(({ rse_id }) => rseIds.has(rse_id))
      return { rseIds, left: bytes - used.reduce((sum, row) => sum + row.bytes + row.reserved, 0) }
    })
  }

  /** Bytes, below 0 where more is locked than a limit that came later allows; `Infinity`: without limit. */
  left(rseId: number): number {
    return Math.min(Infinity, ...this.#limits.filter(({ rseIds }) => rseIds.has(rseId)).map(({ left }) => left))
  }

  /** Whether so much may be locked at each of these storages: one limit may name several of them. */
  allows(rseIds: readonly number[], bytes: number): boolean {
    return this.#limits.every(limit => {
      const named = rseIds.filter(id => limit.rseIds.has(id)).length
      return named === 0 || named * bytes <= limit.left
    })
  }

  /** No more than this can be locked at these storages together, with at most `each` bytes at one. An upper bound. */
  most(rseIds: readonly number[], each: number): number {
    const bounds = new Map(rseIds.map(id => [id, Math.max(0, Math.min(each, this.left(id)))]))
    const sum = (ids: readonly number[]): number => ids.reduce((total, id) => total + (bounds.get(id) ?? 0), 0)
    const outside = this.#limits.map(limit => Math.max(0, limit.left) + sum(rseIds.filter(id => !limit.rseIds.has(id))))
    return Math.min(sum(rseIds), ...outside)
  }

  take(rseId: number, bytes: number): void {
    for (const limit of this.#limits) if (limit.rseIds.has(rseId)) limit.left -= bytes
  }
}

/** A word that names nothing any more is no storage: the limit holds at the others, and `account limits` says so. */
function named(expression: string, rses: readonly (ExpressionRse & { readonly id: number })[]): number[] {
  const names = evaluateExpression(parseExpression(expression).tree, rses)
  return rses.filter(rse => names.has(rse.name)).map(rse => rse.id)
}
