import type { ServerConfig } from '../config.ts'
import type { WorkerRights } from './caller.ts'
import { type Sight, sees } from './sight.ts'
import type { Vos } from './vos.ts'

/** A configured worker pool: whose tokens it comes with, and what it may serve. */
export interface WorkerPool {
  readonly issuer: string
  readonly client: string
  readonly rights: WorkerRights
}

export function workerPools({ workers }: Pick<ServerConfig, 'workers'>, vos: Vos): WorkerPool[] {
  return workers.map(({ issuer, client, vos: names, rses }) => ({
    issuer,
    client,
    rights: {
      ...(names === undefined ? {} : { voIds: names.map(name => vos.named(name).id) }),
      ...(rses === undefined ? {} : { rses }),
    },
  }))
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
