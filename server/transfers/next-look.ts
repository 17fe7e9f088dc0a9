/** A million transfers that wait must not keep the database busy. Milliseconds. */
const DELAY = { least: 60_000, most: 600_000 }

export interface NextLook {
  /** An expression for `not_before`. */
  readonly sql: string
  readonly bindings: { readonly old: number; readonly soon: number; readonly late: number }
}

/** When a transfer that cannot go on now is looked at again: later the longer it has been waiting. */
export function nextLook(now: number): NextLook {
  return {
    sql: 'CASE WHEN created_at > :old THEN CAST(:soon AS bigint) ELSE CAST(:late AS bigint) END',
    bindings: { old: now - DELAY.most, soon: now + DELAY.least, late: now + DELAY.most },
  }
}
