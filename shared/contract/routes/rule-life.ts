import { z } from 'zod'
import { activity, did, id, idInPath, page, pageQuery, time, words } from '../fields.ts'
import { route } from '../route.ts'
import { lifetime, priority, ruleAnswer } from './rules.ts'

const tag = 'Rules'
const params = z.object({ id: idInPath })
const reason = words(250).min(1)

export const ruleEventAnswer = z.object({
  id,
  rule: id,
  did,
  at: time,
  event: z.string(),
  actor: z.string().optional().describe('the account, or who it was; absent: Waybill itself'),
  details: z.record(z.string(), z.unknown()),
})

export const ruleLifeRoutes = {
  updateRule: route({
    method: 'PATCH',
    path: '/v1/rules/{id}',
    role: 'manager',
    permission: 'manage',
    tag,
    summary: 'Change a rule: what is absent stays',
    description:
      'Its transfers follow: they get its new priority and activity, and those of a suspended rule that no other wants are cancelled.',
    params,
    body: z
      .strictObject({
        lifetime: lifetime.nullable().optional().describe('seconds from now; null: for ever'),
        locked: z.boolean().optional().describe('a locked rule is not removed, and does not expire'),
        priority: priority.optional(),
        activity: activity.optional(),
        comment: words(250).nullable().optional(),
        suspended: z.boolean().optional().describe('nothing is done for a suspended rule: what is there stays'),
      })
      .refine(body => Object.values(body).some(value => value !== undefined), 'say what is to be changed'),
    answer: ruleAnswer,
    status: 200,
  }),
  judgeRule: route({
    method: 'POST',
    path: '/v1/rules/{id}/approval',
    role: 'admin',
    tag,
    summary: 'Approve a rule that waits for it, whatever the quota of its account, or deny it: it is removed then',
    params,
    body: z.strictObject({ approve: z.boolean(), reason: reason.optional() }),
    answer: z.object({ approved: z.boolean() }),
    status: 200,
  }),
  replaceRule: route({
    method: 'POST',
    path: '/v1/rules/{id}/replacement',
    role: 'manager',
    permission: 'manage',
    tag,
    summary:
      'Move a rule to other storages, or to fewer copies: a new rule, and the old one goes when the new one is OK',
    description:
      'What is not said is as it was. Storages that hold the files already are chosen first, so that to have fewer copies moves nothing. ' +
      'While both are there the account locks both; fewer copies are not held against its quota.',
    params,
    body: z
      .strictObject({
        expression: words(2000).min(1).optional(),
        copies: z.number().int('copies is a whole number').min(1).max(1000).optional(),
      })
      .refine(body => Object.values(body).some(value => value !== undefined), 'say expression, copies or both'),
    answer: ruleAnswer.describe('the new rule'),
    status: 201,
    idempotent: true,
  }),
  listRuleEvents: route({
    method: 'GET',
    path: '/v1/rules/{id}/events',
    role: 'member',
    tag,
    summary: 'List what happened to a rule, also to one that is gone',
    params,
    query: z.strictObject(pageQuery),
    answer: page(ruleEventAnswer),
    status: 200,
  }),
  listDidEvents: route({
    method: 'GET',
    path: '/v1/rule-events',
    role: 'member',
    tag,
    summary: 'List what happened to all rules that a DID has and had',
    query: z.strictObject({ did, ...pageQuery }),
    answer: page(ruleEventAnswer),
    status: 200,
  }),
}
