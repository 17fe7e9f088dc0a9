import type { Route } from './route.ts'
import { activityRoutes } from './routes/activities.ts'
import { catalogueRoutes } from './routes/catalogue.ts'
import { fleetRoutes } from './routes/fleet.ts'
import { limitRoutes } from './routes/limits.ts'
import { mappingRoutes } from './routes/mappings.ts'
import { peopleRoutes } from './routes/people.ts'
import { ruleLifeRoutes } from './routes/rule-life.ts'
import { ruleRoutes } from './routes/rules.ts'
import { scopeRoutes } from './routes/scopes.ts'
import { storageRoutes } from './routes/storages.ts'
import { workerRoutes } from './routes/worker.ts'

/** THE route table. A new row needs a handler (`server/api.ts` does not compile without) and nothing else. */
export const ROUTES = {
  ...storageRoutes,
  ...catalogueRoutes,
  ...ruleRoutes,
  ...ruleLifeRoutes,
  ...peopleRoutes,
  ...limitRoutes,
  ...mappingRoutes,
  ...scopeRoutes,
  ...activityRoutes,
  ...fleetRoutes,
  ...workerRoutes,
} as const satisfies Record<string, Route>

export type Routes = typeof ROUTES
export type RouteName = keyof Routes
