import type { Context } from '../context.ts'

/** Of background work rule by rule: one that fails is logged, and holds up no other (rucio #8699). Whether something was done. */
export async function guarded(
  { log, storages }: Pick<Context, 'log' | 'storages'>,
  ruleId: number,
  work: () => Promise<boolean>,
): Promise<boolean> {
  try {
    return await work()
  } catch (error) {
    storages.forget()
    log.error({ err: error, rule: ruleId }, 'work at a rule failed; it is tried again')
    return false
  }
}
