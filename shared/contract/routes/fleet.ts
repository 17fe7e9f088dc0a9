import { z } from 'zod'
import { words, workerName } from '../fields.ts'
import { route } from '../route.ts'

const tag = 'Workers'

export const shownWorker = z.object({
  name: workerName,
  issuer: z.string(),
  client: z.string().describe('client id of its pool'),
  state: z
    .enum(['working', 'draining', 'drained'])
    .describe('draining: it gets no work and finishes what it has. drained: it has none.'),
  alive: z.boolean().describe('it has a session'),
  active: z.number().describe('transfers under way'),
  imports: z.number(),
  version: z.string().optional().describe('of its software'),
  sinceSeconds: z.number().optional().describe('age of its session'),
  drainedSeconds: z.number().optional().describe('how long ago it was drained'),
})

/** Only who has one name in several pools must be told which. */
const which = {
  params: z.object({ worker: workerName }),
  body: z.strictObject({
    issuer: z.url().max(300).optional(),
    client: words(255).min(1).optional().describe('client id of its pool, where two have a worker of that name'),
  }),
}

export const fleetRoutes = {
  listWorkers: route({
    method: 'GET',
    path: '/v1/workers',
    role: 'member',
    tag,
    summary: 'List the workers that have a session or are drained',
    answer: z.object({ items: z.array(shownWorker) }),
    status: 200,
  }),
  drainWorker: route({
    method: 'POST',
    path: '/v1/workers/{worker}/drain',
    role: 'admin',
    tag,
    summary: 'Give a worker no more work: it finishes what it has, and waits',
    description: 'It stays drained when it is started again, until it is resumed. Draining it again changes nothing.',
    ...which,
    answer: shownWorker,
    status: 200,
  }),
  resumeWorker: route({
    method: 'POST',
    path: '/v1/workers/{worker}/resume',
    role: 'admin',
    tag,
    summary: 'Give a drained worker work again',
    ...which,
    answer: shownWorker,
    status: 200,
  }),
}
