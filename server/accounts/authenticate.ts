import type { BearerVerifier } from '../../shared/oidc/verify-bearer.ts'
import type { ServerConfig } from '../config.ts'
import type { Executor } from '../database/sql.ts'
import type { Caller, WorkerRights } from './caller.ts'
import { accountOf } from './store.ts'

/**
 * Who a verified token stands for. Admins and workers come from the configuration, accounts from the database; no right
 * derives from a scope or group, which an issuer may hand out by default.
 */
export function authenticator(
  verifier: BearerVerifier,
  config: Pick<ServerConfig, 'admins' | 'workers'>,
  read: Executor,
): (authorization: string | undefined) => Promise<Caller> {
  return async authorization => {
    const { issuer, subject, clientId } = await verifier.verify(authorization)
    const account = await accountOf(read, { issuer, subject })
    const worker = workerRights(config, issuer, clientId ?? subject)
    return {
      issuer,
      subject,
      admin: config.admins.some(admin => admin.issuer === issuer && admin.subject === subject),
      ...(clientId === undefined ? {} : { clientId }),
      ...(worker === undefined ? {} : { worker }),
      ...(account === undefined ? {} : { account }),
    }
  }
}

function workerRights(config: Pick<ServerConfig, 'workers'>, issuer: string, client: string): WorkerRights | undefined {
  const worker = config.workers.find(candidate => candidate.issuer === issuer && candidate.client === client)
  if (worker === undefined) return undefined
  const { vos, rses } = worker
  return { ...(vos === undefined ? {} : { vos }), ...(rses === undefined ? {} : { rses }) }
}
