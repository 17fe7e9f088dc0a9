import { sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { liftHolds } from './lift-store.ts'

/** For whoever has mended a storage and will not wait until it is tried. */
export function holdHandlers({ db, clock, log, wake, storages }: Context): Pick<Handlers, 'retryRse'> {
  return {
    async retryRse({ params, caller }) {
      const rse = await storages.byName(sightOf(caller), params.rse)
      const lifted = await db.write(executor => liftHolds(executor, rse.id, clock.now()))
      // Those that wait in a claim look at once.
      wake.notify('queue')
      log.info({ rse: rse.name, lifted, subject: caller.subject }, 'a storage is tried again')
      return { lifted }
    },
  }
}
