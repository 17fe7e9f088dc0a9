import type { Context } from '../context.ts'

/**
 * Of background work rule by rule: one that fails is logged, and holds up no other (rucio #8699). Whether something was done. `putOff`: has
 * it come after the others next time, where no `Pages` does.
 */
export async function guarded(
  { log, storages }: Pick<Context, 'log' | 'storages'>,
  ruleId: number,
  work: () => Promise<boolean>,
  putOff?: () => Promise<void>,
): Promise<boolean> {
  try {
    return await work()
  } catch (error) {
    storages.forget()
    log.error({ err: error, rule: ruleId }, 'work at a rule failed; it is tried again')
    await putOff?.()
    return false
  }
}

/**
 * Pages of rules in one order, and from the first again: where work that fails leaves its rule as it is, the others have their turn all
 * the same.
 */
export class Pages<T> {
  readonly #find: (last: T | undefined, limit: number) => Promise<readonly T[]>
  readonly #size: number
  #last: T | undefined

  /** `find`: those behind the last one of the page before, or the first. */
  constructor(size: number, find: (last: T | undefined, limit: number) => Promise<readonly T[]>) {
    this.#find = find
    this.#size = size
  }

  /** `more`: there may be some behind these. */
  async next(): Promise<{ readonly page: readonly T[]; readonly more: boolean }> {
    const page = await this.#find(this.#last, this.#size)
    const more = page.length === this.#size
    this.#last = more ? page.at(-1) : undefined
    return { page, more }
  }
}
