import { z } from 'zod'
import { capturesNamed, checkPattern, fillTemplate, LONGEST_PATTERN, wildcardsOf } from '../../domain/claim-pattern.ts'
import { checkName } from '../../domain/names.ts'
import { accountName, empty, id, idInPath, page, pageQuery, time, voName, words } from '../fields.ts'
import { route } from '../route.ts'

const tag = 'Accounts'
const issuer = z.url().max(300)

export const mappingClaim = z.enum(['sub', 'client_id', 'group', 'entitlement', 'scope'])
export type MappingClaim = z.output<typeof mappingClaim>

const pattern = words(LONGEST_PATTERN)
  .superRefine((value, context) => {
    const reason = checkPattern(value)
    if (reason !== undefined) context.addIssue({ code: 'custom', message: reason })
  })
  .describe(
    'plain text; `*` stands for one or more characters but `/` and `:`, `**` at the end for one or more of any. All of the claim must match',
  )
  .meta({ example: '/exp/production' })

/** Every capture may be one character at least, so that is what a template is tried with. */
const nameTemplate = z
  .string()
  .max(60)
  .superRefine((value, context) => {
    const filled = fillTemplate(
      value,
      Array.from({ length: 9 }, () => 'x'),
    )
    const reason = capturesNamed(value).includes(0) ? 'captures are counted from {1}' : checkName('account', filled)
    if (reason !== undefined) context.addIssue({ code: 'custom', message: reason })
  })
  .meta({ example: 'production' })

/** A digit at its end would make one name of two pools’ accounts: `cms1` and 001, `cms` and 1001. */
export const poolName = accountName
  .refine(value => value.length <= 20, 'a pool’s name has at most 20 characters: a number follows it')
  .refine(value => !/\d$/.test(value), 'a pool’s name must not end in a digit: a number follows it')
  .meta({ example: 'exp' })

const mappingAnswer = z.object({
  id,
  position: z.number().describe('from 1 on; the first that matches counts'),
  issuer: z.string(),
  claim: mappingClaim,
  pattern: z.string(),
  vo: voName,
  account: z.string().optional(),
  pool: z.string().optional(),
})

const poolAnswer = z.object({
  pool: poolName,
  vo: voName,
  size: z.number(),
  held: z.number(),
  released: z.number(),
})
const poolParams = z.object({ pool: poolName })

const several = z.array(words(300).min(1)).max(200).default([])

export const mappingRoutes = {
  addMapping: route({
    method: 'POST',
    path: '/v1/mappings',
    role: 'admin',
    tag,
    summary: 'Map all tokens with such a claim to an account, or each person to an account of a pool',
    description:
      'Mappings are asked in their order for identities that are mapped to no account themselves; the first that matches counts, also where its account is not there. Of a claim with several elements any may match, the first in the token’s order. `{1}` in the account’s or pool’s name is what the first wildcard stood for; the name that comes out must be there. Other servers learn of it within seconds.',
    body: z
      .strictObject({
        issuer,
        claim: mappingClaim,
        pattern,
        account: nameTemplate.optional(),
        pool: nameTemplate.optional(),
        vo: voName.optional(),
        position: z.number().int().min(1).max(1000).optional().describe('default: after all others'),
      })
      .refine(({ account, pool }) => (account === undefined) !== (pool === undefined), {
        path: ['account'],
        error: 'say either an account or a pool',
      })
      .refine(it => capturesNamed(it.account ?? it.pool ?? '').every(n => n <= wildcardsOf(it.pattern)), {
        path: ['pattern'],
        error: 'the name has a capture for which the pattern has no wildcard',
      }),
    answer: mappingAnswer,
    status: 201,
    idempotent: true,
  }),
  listMappings: route({
    method: 'GET',
    path: '/v1/mappings',
    role: 'admin',
    tag,
    summary: 'List the mappings in the order in which they are asked',
    answer: z.object({ items: z.array(mappingAnswer) }),
    status: 200,
  }),
  removeMapping: route({
    method: 'DELETE',
    path: '/v1/mappings/{id}',
    role: 'admin',
    tag,
    summary: 'Remove a mapping: whom it alone mapped has no account any more',
    params: z.object({ id: idInPath }),
    answer: empty,
    status: 200,
  }),
  tryMappings: route({
    method: 'POST',
    path: '/v1/mappings/trials',
    role: 'admin',
    tag,
    summary: 'Say which account a token with such claims would have, and why; nothing is handed out',
    body: z.strictObject({
      issuer,
      subject: words(255).min(1).optional(),
      clientId: words(300).min(1).optional(),
      groups: several,
      entitlements: several,
      scopes: several,
    }),
    answer: z.object({
      account: accountName.optional(),
      vo: voName.optional(),
      mapping: id.optional(),
      sentence: z.string(),
    }),
    status: 200,
  }),
  setAccountPool: route({
    method: 'PUT',
    path: '/v1/account-pools/{pool}',
    role: 'admin',
    tag,
    summary: 'Make a pool of accounts, or change how many are held at a time',
    description:
      'Its accounts are called after it, with a number: `exp001`. Each is handed out with the first request of somebody whom a mapping leads to the pool, and is theirs for good.',
    params: poolParams,
    body: z.strictObject({
      size: z.number().int().min(0).max(10_000).default(200).describe('0: nobody gets one any more'),
      vo: voName.optional(),
    }),
    answer: poolAnswer,
    status: 200,
  }),
  listAccountPools: route({
    method: 'GET',
    path: '/v1/account-pools',
    role: 'admin',
    tag,
    summary: 'List the pools of accounts',
    answer: z.object({ items: z.array(poolAnswer) }),
    status: 200,
  }),
  listPoolAccounts: route({
    method: 'GET',
    path: '/v1/account-pools/{pool}/accounts',
    role: 'admin',
    tag,
    summary: 'List the accounts of a pool, and whose they are',
    params: poolParams,
    query: z.strictObject({ vo: voName.optional(), ...pageQuery }),
    answer: page(
      z.object({
        account: accountName,
        issuer: z.string(),
        subject: z.string(),
        held: z.boolean().describe('false: released'),
        since: time,
      }),
    ),
    status: 200,
  }),
  releaseAccount: route({
    method: 'POST',
    path: '/v1/accounts/{account}/release',
    role: 'admin',
    tag,
    summary: 'Release an account of a pool: it takes no room there any more',
    description:
      'What belongs to the account stays its own, so nobody else ever gets it; whoever had it gets it again when a mapping still leads them to the pool.',
    params: z.object({ account: accountName }),
    body: z.strictObject({ vo: voName.optional() }),
    answer: z.object({ account: accountName, vo: voName }),
    status: 200,
  }),
}
