import { z } from 'zod'
import {
  accountName,
  adler32,
  bytes,
  did,
  didName,
  didType,
  id,
  md5,
  page,
  pageQuery,
  replicaState,
  rseName,
  scopeName,
  storagePath,
  time,
  words,
} from '../fields.ts'
import { route } from '../route.ts'

const tag = 'Catalogue'
const didParams = z.object({ scope: scopeName, name: didName })

export const didAnswer = z.object({
  did,
  type: didType,
  bytes: z.number(),
  files: z.number(),
  adler32: z.string().optional(),
  md5: z.string().optional(),
  open: z.boolean(),
  account: z.string(),
  createdAt: time,
})

const checksums = { adler32: adler32.optional(), md5: md5.optional() }
const registered = z.object({ files: z.number(), created: z.number(), attached: z.number() })

export const replicaAnswer = z.object({
  did,
  rse: rseName,
  state: replicaState,
  bytes: z.number(),
  adler32: z.string().optional(),
  md5: z.string().optional(),
  url: z.string(),
  locks: z.number(),
  kept: z.boolean().describe('it was registered, imported or uploaded there: the end of a rule does not take it away'),
  fault: z
    .string()
    .optional()
    .describe(
      'why it is BAD or was lost, what is said of it and is to be looked at, or what its deletion failed with last',
    ),
  faultAt: time.optional().describe('since when it is BAD or lost'),
  faultBy: accountName.optional().describe('who declared it BAD or lost; absent: a worker found it'),
  tombstoneAt: time.optional().describe('no rule asks for it since then; 0: it goes at once'),
  stays: z.string().optional().describe('why it is not deleted all the same: `CODE: words`'),
})

const faultAnswer = z.object({
  did,
  rse: rseName,
  state: replicaState.describe('UNAVAILABLE: nothing lies there, or what was BAD is deleted'),
  locks: z.number(),
  code: z.string(),
  message: z.string(),
  at: time,
  by: accountName.optional().describe('who declared it; absent: a worker found it'),
  transfer: id.optional().describe('that found it'),
  stays: z.string().optional().describe('it is not deleted until a person says so: `CODE: words`'),
})

export const catalogueRoutes = {
  addDids: route({
    method: 'POST',
    path: '/v1/dids',
    role: 'manager',
    permission: 'write',
    tag,
    summary: 'Make datasets and containers',
    description: 'A scope is made with its first DID and belongs to the VO of the account.',
    body: z.strictObject({
      dids: z
        .array(z.strictObject({ did, type: z.enum(['DATASET', 'CONTAINER']) }))
        .min(1)
        .max(10_000),
    }),
    answer: z.object({ created: z.number() }),
    status: 201,
    idempotent: true,
  }),
  listDids: route({
    method: 'GET',
    path: '/v1/dids',
    role: 'member',
    tag,
    summary: 'List DIDs of a scope',
    query: z.strictObject({
      scope: scopeName,
      prefix: words(250).optional().describe('only names that begin so'),
      type: didType.optional(),
      ...pageQuery,
    }),
    answer: page(didAnswer),
    status: 200,
  }),
  getDid: route({
    method: 'GET',
    path: '/v1/dids/{scope}/{name}',
    role: 'member',
    tag,
    summary: 'Show a DID',
    params: didParams,
    answer: didAnswer,
    status: 200,
  }),
  setOpen: route({
    method: 'PATCH',
    path: '/v1/dids/{scope}/{name}',
    role: 'manager',
    permission: 'write',
    tag,
    summary: 'Open or close a dataset or container',
    params: didParams,
    body: z.strictObject({ open: z.boolean() }),
    answer: didAnswer,
    status: 200,
  }),
  attach: route({
    method: 'POST',
    path: '/v1/dids/{scope}/{name}/contents',
    role: 'manager',
    permission: 'write',
    tag,
    summary: 'Attach files to a dataset, or datasets and containers to a container',
    params: didParams,
    body: z.strictObject({ dids: z.array(did).min(1).max(10_000) }),
    answer: z.object({ attached: z.number() }),
    status: 200,
  }),
  detach: route({
    method: 'POST',
    path: '/v1/dids/{scope}/{name}/contents/remove',
    role: 'manager',
    permission: 'write',
    tag,
    summary: 'Detach files from a dataset, or datasets and containers from a container',
    description:
      'Rules above it let go of what they do not hold in another way, in the background: a replica that loses its last lock so is deleted after its time of grace. What is not attached is left as it is.',
    params: didParams,
    body: z.strictObject({ dids: z.array(did).min(1).max(10_000) }),
    answer: z.object({ detached: z.number() }),
    status: 200,
  }),
  listContents: route({
    method: 'GET',
    path: '/v1/dids/{scope}/{name}/contents',
    role: 'member',
    tag,
    summary: 'List what a dataset or container holds',
    params: didParams,
    query: z.strictObject(pageQuery),
    answer: page(didAnswer),
    status: 200,
  }),
  registerReplicas: route({
    method: 'POST',
    path: '/v1/replicas',
    role: 'manager',
    permission: 'write',
    tag,
    summary: 'Register files that lie at a storage, and attach them to a dataset',
    description:
      'Files that are not known yet are made; known ones must agree in size and checksums. That they lie there is taken on the word of the account: whoever may manage data of the VO vouches for it to all its rules. Without `path` the layout of the storage says where a file lies.',
    body: z.strictObject({
      rse: rseName,
      dataset: did.optional().describe('made if it is not there'),
      files: z
        .array(z.strictObject({ did, bytes, ...checksums, path: storagePath.optional() }))
        .min(1)
        .max(10_000),
    }),
    answer: registered,
    status: 201,
    idempotent: true,
  }),
  declareReplicas: route({
    method: 'POST',
    path: '/v1/replicas/declarations',
    role: 'manager',
    permission: 'write',
    tag,
    summary: 'Say that replicas at a storage are bad, lost, or good after all',
    description:
      'BAD: what lies there is not the file; it is deleted and copied there anew, if another storage has a good copy and a rule holds it; what a worker found is confirmed. LOST: nothing lies there; it is copied there anew. GOOD: a worker looks at it, and it counts as AVAILABLE if it is the file. Each answer says what became of the replica; may be repeated.',
    body: z.strictObject({
      rse: rseName,
      as: z.enum(['BAD', 'LOST', 'GOOD']),
      reason: words(1000).default('').describe('for people; not of what is GOOD'),
      last: z
        .boolean()
        .default(false)
        .describe(
          'what is BAD may be deleted though no storage have a good copy: it may be all that is left of the file. Of files that others have made this needs the permission `manage`, in an open scope too',
        ),
      files: z
        .array(z.union([z.strictObject({ did }), z.strictObject({ path: storagePath })]))
        .min(1)
        .max(5_000)
        .describe('by DID, or by path at the storage'),
    }),
    answer: z.object({
      results: z
        .array(
          z.object({
            did: did.optional(),
            path: z.string().optional(),
            outcome: z.enum(['DECLARED', 'TO_BE_LOOKED_AT', 'ALREADY', 'REFUSED', 'UNKNOWN']),
            state: replicaState.optional().describe('afterwards'),
            message: z.string().optional(),
          }),
        )
        .describe('in the order of the files'),
    }),
    status: 200,
    idempotent: true,
  }),
  listFaults: route({
    method: 'GET',
    path: '/v1/replicas/faults',
    role: 'member',
    tag,
    summary: 'List replicas that are BAD or lost: why, since when, and who says so',
    query: z.strictObject({ rse: rseName.optional(), ...pageQuery }),
    answer: page(faultAnswer),
    status: 200,
  }),
  keepReplicas: route({
    method: 'PATCH',
    path: '/v1/replicas',
    role: 'manager',
    permission: 'write',
    tag,
    summary: 'Keep the replicas of a file or dataset at a storage without a rule, or let go of them',
    description:
      'What is let go of, and no rule holds, is deleted like any replica that no rule asks for any more. Letting go of files that others have made needs the permission `manage`, in an open scope too. May be repeated.',
    body: z.strictObject({ rse: rseName, did, kept: z.boolean() }),
    answer: z.object({ changed: z.number() }),
    status: 200,
  }),
  listReplicas: route({
    method: 'GET',
    path: '/v1/replicas',
    role: 'member',
    tag,
    summary: 'List the replicas of a file, or of the files of a dataset',
    query: z.strictObject({ did, rse: rseName.optional(), state: replicaState.optional(), ...pageQuery }),
    answer: page(replicaAnswer),
    status: 200,
  }),
}
