import { sightOf } from '../accounts/sight.ts'
import type { Vos } from '../accounts/vos.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { listActivities, putWeight } from './activity-store.ts'

type ActivityHandlers = Pick<Handlers, 'listActivities' | 'setActivity'>

/** How the places of links are shared between activities. */
export function activityHandlers({ db, wake }: Context, vos: Vos): ActivityHandlers {
  return {
    async listActivities({ caller }) {
      const names = new Map(vos.all().map(({ id, name }) => [id, name]))
      const rows = await listActivities(db.read, sightOf(caller))
      return {
        items: rows.flatMap(({ vo_id, activity, weight, active }) => {
          const vo = names.get(vo_id)
          return vo === undefined ? [] : [{ activity, vo, weight, active }]
        }),
      }
    },
    async setActivity({ params: { activity }, body }) {
      const vo = vos.named(body.vo)
      await db.write(executor => putWeight(executor, { voId: vo.id, activity, weight: body.weight }))
      wake.notify('queue')
      const rows = await listActivities(db.read, { voIds: [vo.id] })
      const active = rows.find(row => row.activity === activity)?.active ?? 0
      return { activity, vo: vo.name, weight: body.weight, active }
    },
  }
}
