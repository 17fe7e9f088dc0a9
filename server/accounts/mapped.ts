import { WaybillError } from '../../shared/domain/errors.ts'
import type { Context } from '../context.ts'
import { handOut, refusalOf } from './account-pool-store.ts'
import type { CallerAccount } from './caller.ts'
import type { Match } from './mapping.ts'
import { accountOf, type MappedTo } from './store.ts'

/** Where a match leads; undefined where it names nothing that can be there. */
export function mappedTo(match: Match | undefined): MappedTo | undefined {
  if (match?.name === undefined) return undefined
  const { voId, target } = match.mapping
  return { voId, target, name: match.name }
}

/**
 * The account of this identity, by itself or by a match; an account of a pool is handed out now if it has none yet. Throws 403
 * ACCOUNT_POOL_EXHAUSTED.
 */
export async function accountBy(
  { db, clock, log }: Pick<Context, 'db' | 'clock' | 'log'>,
  identity: { readonly issuer: string; readonly subject: string },
  match: Match | undefined,
): Promise<CallerAccount | undefined> {
  const to = mappedTo(match)
  const known = await accountOf(db.read, identity, to)
  if (known !== undefined || to?.target !== 'pool') return known
  // Whoever has no account calls again and again: they shall not keep the writer busy.
  const refusal = await refusalOf(db.read, to)
  const outcome = refusal ?? (await db.write(executor => handOut(executor, to, identity, clock.now())))
  if (outcome === 'none') return undefined
  if (outcome === 'exhausted') {
    // The last one may have been given to this person meanwhile.
    const late = await accountOf(db.read, identity, to)
    if (late !== undefined) return late
    const message = `the pool ${to.name} of ${match?.mapping.vo} has handed out all its accounts, and ${identity.subject} of ${identity.issuer} has none: ask an admin to make it larger, or to release some`
    throw new WaybillError('ACCOUNT_POOL_EXHAUSTED', message, { status: 403 })
  }
  const account = await accountOf(db.read, identity, to)
  const { issuer, subject } = identity
  log.info({ account: account?.name, pool: to.name, issuer, subject }, 'an account of a pool was handed out')
  return account
}
