import { WaybillError } from '../../shared/domain/errors.ts'
import type { BearerVerifier, VerifiedBearer } from '../../shared/oidc/verify-bearer.ts'
import type { ServerConfig } from '../config.ts'
import type { Context } from '../context.ts'
import type { Kept } from '../kept.ts'
import type { Caller } from './caller.ts'
import { accountBy } from './mapped.ts'
import { firstMatch, type Mapping, type Match } from './mapping.ts'
import { poolOf, type WorkerPool } from './pools.ts'

/**
 * Who a verified token stands for. Admins and workers come from the configuration alone, accounts from the database: no right derives
 * from a scope or group, which an issuer may hand out by default, unless an admin has mapped it to an account.
 */
export function authenticator(
  context: Pick<Context, 'db' | 'clock' | 'log'>,
  verifier: BearerVerifier,
  { admins }: Pick<ServerConfig, 'admins'>,
  pools: readonly WorkerPool[],
  mappings: Kept<Mapping[]>,
): (authorization: string | undefined) => Promise<Caller> {
  // Neither a list nor what a token says changes once it was read; both are kept for a time.
  const matches = new WeakMap<readonly Mapping[], WeakMap<VerifiedBearer, { readonly match: Match | undefined }>>()

  function matchOf(list: readonly Mapping[], bearer: VerifiedBearer): Match | undefined {
    const known = matches.get(list) ?? new WeakMap<VerifiedBearer, { readonly match: Match | undefined }>()
    matches.set(list, known)
    const found = known.get(bearer) ?? { match: firstMatch(list, bearer) }
    known.set(bearer, found)
    return found.match
  }

  return async authorization => {
    const bearer = await verifier.verify(authorization)
    const { issuer, subject } = bearer
    const admin = admins.some(configured => configured.issuer === issuer && configured.subject === subject)
    const worker = poolOf(pools, bearer)?.rights
    // A worker needs no account: a wide pattern shall not make it one, and narrow what it sees.
    const match = worker === undefined ? matchOf(await mappings.get(), bearer) : undefined
    const account = await accountBy(context, { issuer, subject }, match).catch((error: unknown) => {
      // Who else could make the pool larger.
      if (admin && error instanceof WaybillError && error.code === 'ACCOUNT_POOL_EXHAUSTED') return undefined
      throw error
    })
    return {
      issuer,
      subject,
      admin,
      ...(worker === undefined ? {} : { worker }),
      ...(account === undefined ? {} : { account }),
    }
  }
}
