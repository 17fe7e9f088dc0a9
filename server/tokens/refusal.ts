import { afterRefusal, STORAGE_REFUSED, type StorageRefusal } from '../../shared/domain/grant-state.ts'
import { findGrant, type GrantRow, refreshReady } from './grant-store.ts'
import { markRefused, storeFailure } from './lease-store.ts'
import { HELD_MS } from './renewal-policy.ts'
import type { TokenContext } from './tokens.ts'

/**
 * A storage answered 401 to a token of this grant: it is renewed, once in five minutes, or the grant is held for so long if
 * that did not help. Answers the grant as it is then. When the hold ends the grant has a new token, and needs no renewal to
 * be held again: a storage whose clock is wrong costs one token in five minutes. `message`: the storage's words. Undefined: it is to
 * be told again when who renews the grant just now is through.
 */
export async function heedRefusal(
  context: TokenContext,
  grant: GrantRow,
  refusal: StorageRefusal & { readonly message: string },
): Promise<GrantRow | undefined> {
  const { clock, db, log } = context
  const now = clock.now()
  const facts = {
    state: grant.state,
    generation: grant.generation,
    renewing: grant.lease_until > now,
    refusedGeneration: grant.refused_generation,
    refusedAt: grant.refused_at,
  }
  const { generation, message } = refusal
  switch (afterRefusal(facts, refusal, HELD_MS, now)) {
    case 'nothing':
      return grant
    case 'later':
      return undefined
    case 'renew':
      await db.write(executor => markRefused(executor, grant, now))
      log.info({ grant: grant.id, generation, words: message }, 'a storage refused a token: it is renewed')
      break
    case 'hold': {
      const notBefore = now + HELD_MS
      await db.write(async executor => {
        const error = `${STORAGE_REFUSED}: ${message}`
        if ((await storeFailure(executor, grant, { event: 'refuse', notBefore, error })) === undefined) return
        await markRefused(executor, grant, notBefore)
        await refreshReady(executor, [grant.id])
      })
      log.warn({ grant: grant.id, generation, words: message }, 'a storage refused a renewed token: the grant is held')
    }
  }
  return (await findGrant(db.read, grant.id)) ?? grant
}
