import { z } from 'zod'
import { accountName, empty, pageQuery, rseName, voName, words } from '../fields.ts'
import { route } from '../route.ts'

const tag = 'Accounts'
const expression = words(2000).min(1)
const bytes = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const whose = {
  account: accountName
    .optional()
    .describe('absent: every account of the VO, at storages that no limit of its own names'),
  vo: voName.optional(),
}

export const limitRoutes = {
  setLimit: route({
    method: 'PUT',
    path: '/v1/limits',
    role: 'admin',
    tag,
    summary: 'Limit what an account may lock at the storages of an expression together',
    description:
      'The name of one storage is a limit of that one. Of several limits that name a storage the least counts; what none names is without limit. ' +
      'Rules that found too little quota are tried again at once.',
    body: z.strictObject({
      ...whose,
      expression: expression.describe('RSE expression; `*`: everywhere'),
      bytes: bytes.nullable().describe('null: without limit, whatever the VO has for every account'),
    }),
    answer: empty,
    status: 200,
  }),
  removeLimit: route({
    method: 'DELETE',
    path: '/v1/limits',
    role: 'admin',
    tag,
    summary: 'Take a limit back',
    query: z.strictObject({ ...whose, expression }),
    answer: empty,
    status: 200,
  }),
  listLimits: route({
    method: 'GET',
    path: '/v1/limits',
    role: 'member',
    tag,
    summary: 'List the limits of accounts',
    query: z.strictObject({
      account: accountName.optional().describe('those that hold for it'),
      vo: voName.optional(),
      ...pageQuery,
    }),
    answer: z.object({
      items: z.array(
        z.object({
          account: accountName.optional().describe('absent: every account of the VO'),
          vo: voName,
          expression: z.string(),
          bytes: bytes.nullable(),
          error: z.string().optional().describe('what its expression names no more: it limits what is left of it'),
        }),
      ),
      next: z.string().optional(),
    }),
    status: 200,
  }),
  getUsage: route({
    method: 'GET',
    path: '/v1/accounts/{account}/usage',
    role: 'member',
    tag,
    summary: 'Show what an account locks, storage by storage, and how much more it may',
    params: z.object({ account: accountName }),
    query: z.strictObject({ vo: voName.optional() }),
    answer: z.object({
      items: z.array(
        z.object({
          rse: rseName,
          files: z.number().describe('a file that two of its rules lock counts twice'),
          bytes: z.number().describe('likewise'),
          reserved: z.number().describe('bytes that were chosen for there, and are not locked yet'),
          left: z.number().optional().describe('bytes that it may still lock there; absent: without limit'),
        }),
      ),
    }),
    status: 200,
  }),
}
