import { z } from 'zod'
import {
  accountName,
  activity,
  attributeKey,
  did,
  empty,
  id,
  idInPath,
  page,
  pageQuery,
  rseName,
  ruleState,
  time,
  transferState,
  whyCode,
  words,
} from '../fields.ts'
import { route } from '../route.ts'

const rules = 'Rules'
const transfers = 'Transfers'
export const lifetime = z.number().int().min(1).max(3_153_600_000)
export const priority = z.number().int().min(1).max(5)
const grouping = z.enum(['ALL', 'DATASET', 'NONE'])
const idParams = z.object({ id: idInPath })

export const ruleAnswer = z.object({
  id,
  did,
  account: accountName,
  copies: z.number(),
  expression: z.string(),
  grouping,
  weight: z.string().optional(),
  sourceExpression: z.string().optional().describe('which storages its files may come from; absent: any'),
  activity: z.string(),
  priority: z.number(),
  comment: z.string().optional(),
  archive: z.boolean(),
  purgeReplicas: z.boolean(),
  locked: z.boolean(),
  replaces: id.optional().describe('the rule that goes when this one is OK'),
  replacedBy: id.optional().describe('the rule that takes its place when that one is OK'),
  state: ruleState,
  locks: z.object({ ok: z.number(), replicating: z.number(), stuck: z.number() }),
  expanded: z.boolean().describe('false while locks are still being made'),
  problems: z
    .array(z.object({ did, rse: rseName, code: z.string(), message: z.string() }))
    .optional()
    .describe('of a STUCK rule: files that could get no lock, or whose last transfer failed, and why'),
  error: z.string().optional(),
  expiresAt: time.optional(),
  createdAt: time,
  updatedAt: time,
})

export const attemptAnswer = z.object({
  source: rseName.optional(),
  mode: z.string().optional(),
  outcome: z.string(),
  startedAt: time,
  endedAt: time,
  bytes: z.number(),
  sourceGrant: z.number().optional(),
  destinationGrant: z.number().optional(),
  error: z.object({ scope: z.string(), phase: z.string(), code: z.string(), message: z.string() }).optional(),
})

export const transferAnswer = z.object({
  id,
  did,
  source: rseName.optional(),
  destination: rseName,
  state: transferState,
  reason: z.string().optional().describe('why it waits, or failed'),
  hopOf: z
    .number()
    .optional()
    .describe('it brings the file of this transfer, and maybe of others, to a storage on the way'),
  bytes: z.number(),
  bytesDone: z.number(),
  attempts: z.number(),
  notBefore: time.optional(),
  replanned: z
    .object({ at: time, from: z.string(), code: z.string(), message: z.string() })
    .optional()
    .describe(
      'the last time that it was moved to another source while it was queued: SOURCE_HELD or SOURCE_SLOW, and why',
    ),
  activity: z.string(),
  priority: z.number(),
  createdAt: time,
  updatedAt: time,
})

const whyAnswer = z.object({
  code: whyCode,
  sentence: z.string(),
  figures: z
    .record(z.string(), z.union([z.number(), z.string()]))
    .describe(
      'what the sentence rests on, by name; `since` is a time; counts of a queue end at 10,000, in a rule’s groups at 100',
    ),
  source: rseName.optional(),
  destination: rseName,
  again: time
    .optional()
    .describe('when it is looked at again; absent where an event decides, which the sentence names'),
})

export const transferWhyAnswer = whyAnswer.extend({ id, did, state: transferState })

export const ruleWhyAnswer = z.object({
  id,
  did,
  state: ruleState,
  sentence: z.string(),
  locks: z.object({ ok: z.number(), replicating: z.number(), stuck: z.number() }),
  groups: z
    .array(whyAnswer.extend({ count: z.number(), transfer: id, example: did }))
    .describe('its transfers that are not over, by code and way, the most first; what is said is said of the example'),
  looked: z.number().describe('transfers that the groups are made of'),
  more: z.boolean().describe('there are more than were looked at'),
  problems: z
    .array(z.object({ did, rse: rseName, code: z.string(), message: z.string() }))
    .describe('files that could get no lock, or whose last transfer failed, and why: the first hundred'),
  again: time.optional().describe('when what is stuck is tried again'),
})

const ruleRequest = z.strictObject({
  dids: z.array(did).min(1).max(1000),
  copies: z.number().int('copies is a whole number').min(1, 'copies must be at least 1').max(1000),
  expression: words(2000).min(1).describe('RSE expression, e.g. `tier=1&country=de|SITE-A`'),
  grouping: grouping
    .default('DATASET')
    .describe('ALL: everything at the same storages; DATASET: each dataset; NONE: each file where it fits'),
  weight: attributeKey.optional().describe('attribute of storages: they are chosen in proportion to its value'),
  sourceExpression: words(2000)
    .min(1)
    .optional()
    .describe('RSE expression: which storages the files may be copied from; absent: any that has them'),
  lifetime: lifetime.optional().describe('seconds'),
  activity: activity.default('User Subscriptions'),
  priority: priority.default(3),
  comment: words(250).optional(),
  archive: z.boolean().default(false).describe('new copies count when they are on tape, at storages that have one'),
  purgeReplicas: z
    .boolean()
    .default(false)
    .describe('copies that it alone asked for are deleted at once when it ends, however much space is free'),
  askApproval: z
    .boolean()
    .default(false)
    .describe('whatever the quota: nothing is done before somebody approves the rule'),
})

export const ruleRoutes = {
  addRules: route({
    method: 'POST',
    path: '/v1/rules',
    role: 'manager',
    permission: 'rule',
    tag: rules,
    summary: 'Ask for copies: one rule for each DID',
    description: 'Answers at once; locks and transfers are made in the background.',
    body: ruleRequest,
    answer: z.object({ items: z.array(ruleAnswer) }),
    status: 201,
    idempotent: true,
  }),
  previewRules: route({
    method: 'POST',
    path: '/v1/rules/preview',
    role: 'manager',
    permission: 'rule',
    tag: rules,
    summary: 'Say what rules would choose now, and how many bytes would move: nothing is done',
    description:
      'Refused as the rules would be. More than 1,000 datasets, or 5,000 files with grouping NONE, are reckoned up from the first.',
    body: ruleRequest,
    answer: z.object({
      items: z.array(
        z.object({
          did,
          files: z.number(),
          bytes: z.number(),
          exact: z.boolean().describe('false: reckoned up from the first datasets or files'),
          places: z.array(
            z.object({
              rse: rseName,
              bytes: z.number(),
              bytesToMove: z.number().describe('without what is there, or on its way'),
            }),
          ),
          error: z.string().optional().describe('why some would have fewer copies than asked for'),
        }),
      ),
    }),
    status: 200,
  }),
  listRules: route({
    method: 'GET',
    path: '/v1/rules',
    role: 'member',
    tag: rules,
    summary: 'List rules',
    query: z.strictObject({
      did: did.optional(),
      account: accountName.optional(),
      state: ruleState.optional(),
      ...pageQuery,
    }),
    answer: page(ruleAnswer),
    status: 200,
  }),
  getRule: route({
    method: 'GET',
    path: '/v1/rules/{id}',
    role: 'member',
    tag: rules,
    summary: 'Show a rule with its progress',
    params: idParams,
    answer: ruleAnswer,
    status: 200,
  }),
  listRulePlaces: route({
    method: 'GET',
    path: '/v1/rules/{id}/places',
    role: 'member',
    tag: rules,
    summary: 'At which storages a rule has locks, and on how much',
    description: 'Counts all of its locks: some seconds for a rule on millions of files.',
    params: idParams,
    answer: z.object({
      items: z.array(
        z.object({
          rse: rseName,
          bytes: z.number(),
          locks: z.object({ ok: z.number(), replicating: z.number(), stuck: z.number() }),
        }),
      ),
    }),
    status: 200,
  }),
  removeRule: route({
    method: 'DELETE',
    path: '/v1/rules/{id}',
    role: 'manager',
    permission: 'manage',
    tag: rules,
    summary: 'Remove a rule: its locks go, replicas without a lock get a tombstone',
    params: idParams,
    answer: empty,
    status: 202,
  }),
  repairRule: route({
    method: 'POST',
    path: '/v1/rules/{id}/repair',
    role: 'manager',
    permission: 'manage',
    tag: rules,
    summary: 'Try again now what is stuck, and not at the time that `why` names',
    params: idParams,
    answer: ruleAnswer,
    status: 202,
  }),
  getRuleWhy: route({
    method: 'GET',
    path: '/v1/rules/{id}/why',
    role: 'member',
    tag: rules,
    summary: 'Why a rule is not OK: what its files wait for, and what failed',
    params: idParams,
    answer: ruleWhyAnswer,
    status: 200,
  }),
  listRuleTransfers: route({
    method: 'GET',
    path: '/v1/rules/{id}/transfers',
    role: 'member',
    tag: rules,
    summary: 'List the transfers that a rule waits for or had',
    params: idParams,
    query: z.strictObject({ state: transferState.optional(), ...pageQuery }),
    answer: page(transferAnswer),
    status: 200,
  }),
  listTransfers: route({
    method: 'GET',
    path: '/v1/transfers',
    role: 'member',
    tag: transfers,
    summary: 'List transfers',
    query: z.strictObject({
      state: transferState.optional(),
      source: rseName.optional(),
      destination: rseName.optional(),
      ...pageQuery,
    }),
    answer: page(transferAnswer),
    status: 200,
  }),
  getTransfer: route({
    method: 'GET',
    path: '/v1/transfers/{id}',
    role: 'member',
    tag: transfers,
    summary: 'Show a transfer with all its attempts',
    params: idParams,
    answer: transferAnswer.extend({ attemptList: z.array(attemptAnswer) }),
    status: 200,
  }),
  getTransferWhy: route({
    method: 'GET',
    path: '/v1/transfers/{id}/why',
    role: 'member',
    tag: transfers,
    summary: 'Why a transfer waits: one code and sentence, with the figures behind it',
    params: idParams,
    answer: transferWhyAnswer,
    status: 200,
  }),
}
