import type { ServerConfig } from '../config.ts'
import type { WorkerRights } from './caller.ts'
import { type Sight, sees } from './sight.ts'
import type { Vos } from './vos.ts'

/** A configured worker pool: whose tokens it comes with, and what it may serve. */
export interface WorkerPool {
  readonly issuer: string
  readonly client: string
  /** `sub` of the tokens that the client gets for itself. */
  readonly subject: string
  readonly rights: WorkerRights
}

export function workerPools({ workers }: Pick<ServerConfig, 'workers'>, vos: Vos): WorkerPool[] {
  return workers.map(({ issuer, client, subject = client, vos: names, rses }) => ({
    issuer,
    client,
    subject,
    rights: {
      client,
      ...(names === undefined ? {} : { voIds: names.map(name => vos.named(name).id) }),
      ...(rses === undefined ? {} : { rses }),
    },
  }))
}

/**
 * The pool whose client got this token for itself, by client credentials: its `sub` is the client's own (facts/tokens.md section
 * 1, statement 5). A person who logs in through the same client has the same `client_id`, and another `sub`.
 */
export function poolOf(
  pools: readonly WorkerPool[],
  bearer: { readonly issuer: string; readonly subject: string; readonly clientId: string | undefined },
): WorkerPool | undefined {
  return pools.find(
    ({ issuer, client, subject }) =>
      issuer === bearer.issuer && subject === bearer.subject && (bearer.clientId ?? client) === client,
  )
}

/** Whether it may serve some VO that is seen, at some storage; `rses` are those that are seen. */
export function servesWithin(
  { rights }: WorkerPool,
  sight: Sight,
  rses: readonly { readonly name: string }[],
): boolean {
  const vo = rights.voIds?.some(voId => sees(sight, voId)) ?? true
  return vo && (rights.rses?.some(name => rses.some(rse => rse.name === name)) ?? true)
}
