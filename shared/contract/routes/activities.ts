import { z } from 'zod'
import { activity, voName } from '../fields.ts'
import { route } from '../route.ts'

const tag = 'Activities'
const weight = z
  .number()
  .int()
  .min(1)
  .max(1000)
  .describe('of a link’s places, in relation to the other activities that have work of the same priority there')

const share = z.object({
  activity,
  vo: voName,
  weight,
  active: z.number().describe('transfers under way'),
})

export const activityRoutes = {
  listActivities: route({
    method: 'GET',
    path: '/v1/activities',
    role: 'member',
    tag,
    summary: 'List the activities that have a weight, or transfers under way',
    answer: z.object({ items: z.array(share) }),
    status: 200,
  }),
  setActivity: route({
    method: 'PUT',
    path: '/v1/activities/{activity}',
    role: 'admin',
    tag,
    summary: 'Set the weight of an activity; without one it is 1',
    params: z.object({ activity }),
    body: z.strictObject({ weight, vo: voName.optional() }),
    answer: share,
    status: 200,
  }),
}
