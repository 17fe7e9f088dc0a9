import { WaybillError } from '../../shared/domain/errors.ts'
import type { PersonalPurpose } from '../../shared/domain/grant-state.ts'
import type { Rse } from '../storages/directory.ts'
import { acquireToken } from './acquire.ts'
import { findGrant } from './grant-store.ts'
import { grantFor, type TokenContext } from './tokens.ts'

export interface SealedAccess {
  readonly context: string
  readonly token: string
  /** Epoch milliseconds. */
  readonly expiresAt: number
}

/** What a person's upload or download needs of life when it begins, and how long they wait for the issuer. Milliseconds. */
const LIFE_MS = 1_800_000
const PATIENCE_MS = 15_000

/**
 * A token for these directories (or files) at one storage, for a person, sealed to the key they gave: as narrow and as accounted for as the
 * workers'. Throws 503 ISSUER_UNREACHABLE when it cannot be had in time, 409 with the issuer's code when it is refused.
 */
export async function personalAccess(
  context: TokenContext,
  rse: Rse,
  purpose: PersonalPurpose,
  directories: readonly string[],
  publicJwk: unknown,
  signal: AbortSignal,
): Promise<SealedAccess> {
  const began = context.clock.monotonic()
  const grantId = await context.db.write(executor =>
    grantFor(executor, context.issuers, rse, purpose, directories, context.clock.now()),
  )
  context.wake.notify('grants')
  while (!signal.aborted && context.clock.monotonic() - began < PATIENCE_MS) {
    const grant = await findGrant(context.db.read, grantId)
    if (grant === undefined) break
    const acquired = await acquireToken(context, { publicJwk }, grant, LIFE_MS)
    if (acquired.kind === 'token') {
      const { token, expiresInSeconds } = acquired
      return { context: acquired.context, token, expiresAt: Math.floor(context.clock.now() + expiresInSeconds * 1000) }
    }
    if (acquired.kind === 'refused') throw new WaybillError(acquired.code, acquired.message, { status: 409 })
    if (acquired.kind === 'wait') await context.clock.sleep(Math.min(100, acquired.delayMs), signal)
  }
  throw new WaybillError('ISSUER_UNREACHABLE', 'the issuer gave no token in time: try again', { status: 503 })
}
