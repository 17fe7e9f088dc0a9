import { accountPoolHandlers } from './accounts/account-pool-routes.ts'
import { limitHandlers } from './accounts/limit-routes.ts'
import type { Mapping } from './accounts/mapping.ts'
import { mappingHandlers } from './accounts/mapping-routes.ts'
import type { WorkerPool } from './accounts/pools.ts'
import { accountHandlers } from './accounts/routes.ts'
import { scopeHandlers } from './accounts/scope-routes.ts'
import type { Vos } from './accounts/vos.ts'
import type { Handlers } from './app.ts'
import { catalogueHandlers } from './catalogue/routes.ts'
import { transportHandlers } from './catalogue/transport.ts'
import { faultHandlers } from './faults/routes.ts'
import { importHandlers } from './imports/routes.ts'
import type { Kept } from './kept.ts'
import { ruleLifeHandlers } from './rules/life-routes.ts'
import { ruleHandlers } from './rules/routes.ts'
import { statusHandlers } from './status.ts'
import { storageHandlers } from './storages/routes.ts'
import { tokenHandlers } from './tokens/routes.ts'
import type { TokenContext } from './tokens/tokens.ts'
import { activityHandlers } from './transfers/activity-routes.ts'
import { fleetHandlers } from './transfers/fleet-routes.ts'
import { holdHandlers } from './transfers/hold-routes.ts'
import { transferHandlers } from './transfers/routes.ts'
import { whyHandlers } from './transfers/why-routes.ts'
import { type WorkerSettings, workerHandlers } from './transfers/worker-routes.ts'

/** What the configuration says of all rooms. */
export interface Installation {
  readonly vos: Vos
  /** Whose tokens the API takes. */
  readonly apiIssuers: readonly string[]
  readonly pools: readonly WorkerPool[]
  readonly mappings: Kept<Mapping[]>
  readonly worker: WorkerSettings
  readonly version: string
}

/** A handler for every row of the route table: it does not compile without. */
export function createHandlers(
  context: TokenContext,
  { vos, apiIssuers, pools, mappings, worker, version }: Installation,
): Handlers {
  return {
    ...accountHandlers(context, vos, apiIssuers),
    ...limitHandlers(context, vos),
    ...mappingHandlers(context, { vos, apiIssuers, pools, mappings }),
    ...accountPoolHandlers(context, vos),
    ...scopeHandlers(context, vos),
    ...storageHandlers(context, vos),
    ...catalogueHandlers(context),
    ...transportHandlers(context),
    ...faultHandlers(context),
    ...importHandlers(context),
    ...ruleHandlers(context),
    ...ruleLifeHandlers(context),
    ...transferHandlers(context),
    ...tokenHandlers(context),
    ...activityHandlers(context, vos),
    ...whyHandlers(context, pools),
    ...fleetHandlers(context, pools),
    ...holdHandlers(context),
    ...workerHandlers(context, worker),
    ...statusHandlers(context, pools, version),
  }
}
