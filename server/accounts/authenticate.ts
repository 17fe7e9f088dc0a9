import type { BearerVerifier } from '../../shared/oidc/verify-bearer.ts'
import type { ServerConfig } from '../config.ts'
import type { Executor } from '../database/sql.ts'
import type { Caller } from './caller.ts'
import { poolOf, type WorkerPool } from './pools.ts'
import { accountOf } from './store.ts'

/**
 * Who a verified token stands for. Admins and workers come from the configuration, accounts from the database; no right
 * derives from a scope or group, which an issuer may hand out by default.
 */
export function authenticator(
  verifier: BearerVerifier,
  { admins }: Pick<ServerConfig, 'admins'>,
  pools: readonly WorkerPool[],
  read: Executor,
): (authorization: string | undefined) => Promise<Caller> {
  return async authorization => {
    const { issuer, subject, clientId } = await verifier.verify(authorization)
    const account = await accountOf(read, { issuer, subject })
    const worker = poolOf(pools, { issuer, subject, clientId })?.rights
    return {
      issuer,
      subject,
      admin: admins.some(admin => admin.issuer === issuer && admin.subject === subject),
      ...(worker === undefined ? {} : { worker }),
      ...(account === undefined ? {} : { account }),
    }
  }
}
