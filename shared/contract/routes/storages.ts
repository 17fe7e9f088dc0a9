import { z } from 'zod'
import {
  attributeKey,
  bytes,
  checksumPolicy,
  empty,
  rseName,
  storagePath,
  time,
  voName,
  watchdogChange,
  watchdogs,
  words,
} from '../fields.ts'
import { route } from '../route.ts'

const tag = 'Storages'
const url = z
  .url({ protocol: /^https$/, error: 'a storage is reached by https://host[:port]' })
  .max(300)
  .refine(value => /^https:\/\/[^/?#@\\]+\/?$/i.test(value), 'only https://host[:port], without a path')
  .transform(value => value.replace(/\/$/, ''))
  .meta({ example: 'https://xrootd.site-a.example.org:1094' })

const protocolSettings = {
  priority: z.number().int().min(0).max(100),
  canPull: z.boolean().describe('takes COPY with Source'),
  canPush: z.boolean().describe('takes COPY with Destination'),
  freshConnections: z.boolean().describe('a new connection for each COPY, for storages that do not bear kept ones'),
  macaroons: z
    .boolean()
    .describe(
      "the storage issues tokens of its own (macaroons): the other side of a copy is shown one of these instead of the issuer's token",
    ),
  redirectHosts: z
    .array(words(255))
    .max(50)
    .describe("hosts that redirects may go to; empty: the storage host's parent domain"),
}

export const protocol = z.strictObject({
  url,
  priority: protocolSettings.priority.default(0),
  canPull: protocolSettings.canPull.default(true),
  canPush: protocolSettings.canPush.default(true),
  freshConnections: protocolSettings.freshConnections.default(false),
  macaroons: protocolSettings.macaroons.default(false),
  redirectHosts: protocolSettings.redirectHosts.default([]),
})

const attributeValue = z.union([words(255), z.number(), z.boolean()])
const limits = {
  maxInbound: z.number().int().min(0).max(100_000),
  maxOutbound: z.number().int().min(0).max(100_000),
  maxStaging: z.number().int().min(0).max(1_000_000).describe('files that are asked back from tape at a time'),
  maxDeletions: z.number().int().min(0).max(1_000_000).describe('files under deletion at a time'),
}
const conduct = {
  checksumPolicy: checksumPolicy.describe(
    'source: what it gives is compared with the catalogue before it is copied. destination: what it took, after it was copied; else its size only.',
  ),
  watchdogs: watchdogs.describe('deadlines of copies from and to it; of two storages the longer counts'),
  tape: z
    .boolean()
    .describe('it has a tape behind it and the WLCG tape REST API: what is not on disk is asked back first'),
  multihop: z.boolean().describe('copies may go over it to storages that cannot be reached at once'),
}
const space = {
  capacityBytes: bytes.nullable().describe('of this storage; null: nobody knows'),
  minFreeBytes: bytes
    .nullable()
    .describe(
      'replicas that nobody asks for are deleted only while less is free (capacityBytes is needed); null: soon',
    ),
}
const deletion = {
  keepRegistered: z
    .boolean()
    .describe('what is registered, imported or uploaded there from now on stays when its last rule ends'),
  tombstoneDelaySeconds: z
    .number()
    .int()
    .min(0)
    .max(315_360_000)
    .nullable()
    .describe('from the end of the last rule to the deletion; null: as the server is configured'),
}
const availability = {
  availabilityRead: z.boolean(),
  availabilityWrite: z.boolean(),
  availabilityDelete: z.boolean(),
}

/** Failures of a storage that are its own. */
const failing = z.object({
  failures: z.number().int(),
  holds: z.number().int(),
  since: time,
  heldUntil: time.optional(),
  code: z.string(),
  message: z.string(),
})

export const rse = z.object({
  name: rseName,
  vo: voName,
  prefix: z.string(),
  basePath: z.string(),
  audience: z.string(),
  layout: z.enum(['dataset', 'identity', 'hash']),
  checksum: z.enum(['adler32', 'md5']),
  ...availability,
  ...limits,
  ...conduct,
  ...space,
  ...deletion,
  attributes: z.record(z.string(), attributeValue),
  protocols: z.array(protocol),
  failing: z
    .array(failing.extend({ vo: voName }))
    .optional()
    .describe(
      'it fails as a destination, or is full, for these VOs: the last failure. Held: nothing is sent there until then, and then a few files at a time until they are copied.',
    ),
})

const rseParams = z.object({ rse: rseName })
const attributeParams = z.object({ rse: rseName, key: attributeKey })
const linkParams = z.object({ source: rseName, destination: rseName })

const distance = z.object({
  source: rseName,
  destination: rseName,
  distance: z.number().int(),
  maxActive: z.number().int(),
  optimize: z
    .boolean()
    .describe('how many run at a time is learnt, up to maxActive, and so is the faster of pull and push'),
  limit: z.number().int().describe('in force: what was learnt, or maxActive'),
  failing: failing
    .optional()
    .describe(
      'the source fails on this link: the last failure. Held: nothing is taken from it until then, and then a few at a time until they are copied; what is queued goes to other sources.',
    ),
})

const decision = z.object({
  at: time,
  subject: z.enum(['limit', 'mode']),
  from: z.union([z.number(), z.string()]).describe('transfers at a time, or pull or push'),
  to: z.union([z.number(), z.string()]),
  code: z.string(),
  sentence: z.string().describe('the same for people'),
  figures: z.record(z.string(), z.unknown()).describe('what it rests on'),
})

export const storageRoutes = {
  addRse: route({
    method: 'POST',
    path: '/v1/rses',
    role: 'admin',
    tag,
    summary: 'Add a storage (RSE)',
    description:
      'The audience must be of the storage’s own host: a token for another host is never asked for. `basePath` is what the storage puts before the scope paths of the issuer.',
    body: z.strictObject({
      name: rseName,
      vo: voName.optional(),
      prefix: storagePath.describe('where replicas of this VO live'),
      basePath: z.union([storagePath, z.literal('/')]).default('/'),
      audience: words(300).min(1).optional().describe('default: the URL of the first protocol'),
      layout: z.enum(['dataset', 'identity', 'hash']).default('dataset'),
      checksum: z.enum(['adler32', 'md5']).default('adler32'),
      maxInbound: limits.maxInbound.default(100),
      maxOutbound: limits.maxOutbound.default(100),
      maxStaging: limits.maxStaging.default(10_000),
      maxDeletions: limits.maxDeletions.default(1_000),
      checksumPolicy: conduct.checksumPolicy.default('destination'),
      watchdogs: conduct.watchdogs.default({}),
      tape: conduct.tape.default(false),
      multihop: conduct.multihop.default(false),
      capacityBytes: space.capacityBytes.default(null),
      minFreeBytes: space.minFreeBytes.default(null),
      keepRegistered: deletion.keepRegistered.default(true),
      tombstoneDelaySeconds: deletion.tombstoneDelaySeconds.default(null),
      attributes: z.record(attributeKey, attributeValue).default({}),
      protocols: z.array(protocol).min(1).max(10),
    }),
    answer: rse,
    status: 201,
    idempotent: true,
  }),
  listRses: route({
    method: 'GET',
    path: '/v1/rses',
    role: 'member',
    tag,
    summary: 'List storages, or those that an RSE expression names',
    query: z.strictObject({ expression: words(2000).min(1).optional() }),
    answer: z.object({ items: z.array(rse) }),
    status: 200,
  }),
  getRse: route({
    method: 'GET',
    path: '/v1/rses/{rse}',
    role: 'member',
    tag,
    summary: 'Show a storage',
    params: rseParams,
    answer: rse,
    status: 200,
  }),
  updateRse: route({
    method: 'PATCH',
    path: '/v1/rses/{rse}',
    role: 'admin',
    tag,
    summary: 'Change limits, availability or conduct of a storage',
    params: rseParams,
    body: z
      .strictObject({
        ...limits,
        ...availability,
        ...conduct,
        watchdogs: watchdogChange.describe('those that are to change; null: as if it had never been set'),
        ...space,
        ...deletion,
      })
      .partial(),
    answer: rse,
    status: 200,
  }),
  removeRse: route({
    method: 'DELETE',
    path: '/v1/rses/{rse}',
    role: 'admin',
    tag,
    summary: 'Remove a storage that nothing was ever at, with its links',
    description:
      'One with replicas, now or once, or that a rule has chosen or needs for its expression, stays (409 RSE_IN_USE): it can be closed for reading, writing and deletion.',
    params: rseParams,
    answer: empty,
    status: 200,
  }),
  retryRse: route({
    method: 'POST',
    path: '/v1/rses/{rse}/retry',
    role: 'admin',
    tag,
    summary: 'Try a storage now that is held back: as a destination, and as a source of its links',
    description:
      'A few files try it at once, also those that wait after a failure there. If they fail it is held again, for longer.',
    params: rseParams,
    answer: z.object({
      lifted: z
        .number()
        .int()
        .describe('holds that ended: one for each VO that sends there, and for each link from it'),
    }),
    status: 200,
  }),
  setAttribute: route({
    method: 'PUT',
    path: '/v1/rses/{rse}/attributes/{key}',
    role: 'admin',
    tag,
    summary: 'Set an attribute of a storage',
    params: attributeParams,
    body: z.strictObject({ value: attributeValue }),
    answer: rse,
    status: 200,
  }),
  removeAttribute: route({
    method: 'DELETE',
    path: '/v1/rses/{rse}/attributes/{key}',
    role: 'admin',
    tag,
    summary: 'Remove an attribute of a storage',
    params: attributeParams,
    answer: rse,
    status: 200,
  }),
  addProtocol: route({
    method: 'POST',
    path: '/v1/rses/{rse}/protocols',
    role: 'admin',
    tag,
    summary: 'Add a protocol to a storage, or change the one of the same URL: what is not given stays as it is',
    description: 'A new one takes pull and push, and has priority 0, unless something else is given.',
    params: rseParams,
    body: z.strictObject({ url, ...z.object(protocolSettings).partial().shape }),
    answer: rse,
    status: 201,
  }),
  removeProtocol: route({
    method: 'DELETE',
    path: '/v1/rses/{rse}/protocols',
    role: 'admin',
    tag,
    summary: 'Remove a protocol of a storage, but for the last',
    description:
      'What is under way by it goes on to its end; all else goes by the first of the others. The last one stays: nothing that lies there could be reached without it.',
    params: rseParams,
    query: z.strictObject({ url }),
    answer: rse,
    status: 200,
  }),
  setDistance: route({
    method: 'PUT',
    path: '/v1/distances/{source}/{destination}',
    role: 'admin',
    tag,
    summary: 'Make a link between two storages, or change it: what is not given stays as it is',
    params: linkParams,
    body: z.strictObject({
      distance: z.number().int().min(1).max(1000).optional().describe('of a new link: 1'),
      maxActive: z.number().int().min(0).max(100_000).optional().describe('of a new link: 60'),
      optimize: z
        .boolean()
        .optional()
        .describe('false: maxActive is the limit, and copies are pulled where they can be; of a new link: true'),
    }),
    answer: distance,
    status: 200,
  }),
  removeDistance: route({
    method: 'DELETE',
    path: '/v1/distances/{source}/{destination}',
    role: 'admin',
    tag,
    summary: 'Close a link: queued transfers look for another source',
    params: linkParams,
    answer: empty,
    status: 200,
  }),
  listDecisions: route({
    method: 'GET',
    path: '/v1/distances/{source}/{destination}/decisions',
    role: 'member',
    tag,
    summary: 'Why a link has its limit and its mode: the last decisions, the newest first',
    description:
      'Those that changed something, or had another reason than the one before. They are kept for a week, at most 1,000 of a link.',
    params: linkParams,
    query: z.strictObject({ limit: z.coerce.number().int().min(1).max(1000).default(100) }),
    answer: z.object({ source: rseName, destination: rseName, items: z.array(decision) }),
    status: 200,
  }),
  listDistances: route({
    method: 'GET',
    path: '/v1/distances',
    role: 'member',
    tag,
    summary: 'List the links',
    answer: z.object({ items: z.array(distance) }),
    status: 200,
  }),
}
