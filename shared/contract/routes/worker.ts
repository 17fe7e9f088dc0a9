import { z } from 'zod'
import {
  adler32,
  bytes,
  checksumPolicy,
  did,
  empty,
  id,
  idInPath,
  md5,
  publicKey,
  rseName,
  watchdogs,
  words,
  workerName,
} from '../fields.ts'
import { route } from '../route.ts'
import { importDirectory, importPart } from './import-parts.ts'

const tag = 'Worker'
const session = id.describe('the session that POST /v1/worker/sessions gave')
const fence = z.number().int().nonnegative()
const held = { transfer: id, fence }
/** Transfers in one claim, at most. */
export const MOST_CLAIMED = 1_000
/** Transfers that one worker can tell it holds: those that run, and those whose outcome was not answered yet. */
export const MOST_HELD = 20_000

/** What a worker must know of a storage to drive it. */
export const workerStorage = z.object({
  rse: rseName,
  canPull: z.boolean(),
  canPush: z.boolean(),
  checksum: z.enum(['adler32', 'md5']),
  checksumPolicy,
  watchdogs,
  freshConnections: z.boolean(),
  macaroons: z.boolean(),
  redirectHosts: z.array(z.string()),
})

export const claimedTransfer = z.object({
  ...held,
  kind: z.enum(['copy', 'settle']).describe('settle: an earlier attempt ended unseen; look at the destination first'),
  did,
  bytes,
  adler32: adler32.optional(),
  md5: md5.optional(),
  source: z.object({ rse: rseName, url: z.string(), grant: id }),
  destination: z.object({ rse: rseName, url: z.string(), grant: id }),
  mode: z
    .enum(['pull', 'push'])
    .optional()
    .describe('to be tried first, where both storages can do it: the faster one, or the other to see whether it is'),
})
export type ClaimedTransfer = z.output<typeof claimedTransfer>
export type WorkerStorage = z.output<typeof workerStorage>

export const transferError = z.strictObject({
  scope: z.enum(['SOURCE', 'DESTINATION', 'TRANSFER', 'TOKEN', 'GENERAL']),
  phase: z.enum(['PREPARATION', 'TRANSFER', 'FINALIZATION']),
  code: z.string().regex(/^[A-Z][A-Z_]{2,60}$/),
  message: words(1000),
  retryable: z.boolean(),
  retryAfterSeconds: z.number().nonnegative().max(86_400).optional(),
})

export const outcome = z.strictObject({
  ...held,
  result: z
    .enum(['done', 'failed', 'unknown', 'handed-back', 'absent', 'growing'])
    .describe(
      'done: size and checksum were verified at the destination. failed: nothing copies any more and nothing of it is left. unknown: nobody saw the end. handed-back: the storages were not touched. absent, growing: what settling found.',
    ),
  mode: z.enum(['pull', 'push', 'stream']).optional(),
  /** How long the attempt took, and how long ago it ended: servers know no worker's clock. */
  durationMs: z.number().nonnegative().max(1e12),
  endedMsAgo: z.number().nonnegative().max(1e12),
  bytes,
  cleaned: z.boolean().default(false).describe('the DELETE under the permit was answered'),
  left: z
    .enum(['nothing', 'own', 'unknown'])
    .default('unknown')
    .describe(
      'nothing: the destination was looked at or cleaned up, and is empty. own: what lies there, or comes to, may be of this attempt. unknown: none of it is.',
    ),
  sourceGrant: id.optional(),
  destinationGrant: id.optional(),
  error: transferError.optional(),
})
export type Outcome = z.input<typeof outcome>

export const importJob = z.object({
  import: id,
  fence,
  url: z.string(),
  grant: id,
  storage: workerStorage,
  dataset: z.string().describe('the name of the dataset: that of a file is this, a slash, and its path'),
  checksum: z.enum(['storage', 'none']).describe('none: what the listing tells is enough'),
  summed: z.boolean().describe('a file of this import had a checksum: the storage tells some'),
  directories: z.array(importDirectory).describe('to be listed, in this order'),
})
export type ImportJob = z.output<typeof importJob>

/** Files in one task, at most. */
export const MOST_IN_TASK = 500

/** Bulk work at one storage. */
export const storageTask = z.object({
  task: id,
  fence,
  kind: z
    .enum(['delete', 'recall', 'archive', 'look'])
    .describe(
      'delete: remove the files; one that is not there is removed. recall: have the storage bring them from tape. archive: ask whether they are on tape. look: compare what lies there with size and checksums.',
    ),
  request: z.string().optional().describe('of a recall: what the storage calls it'),
  last: z
    .boolean()
    .default(false)
    .describe(
      'of a recall: no other files are in the request, which the storage may forget when none of these is on its way or wanted on disk',
    ),
  storage: workerStorage,
  grant: id,
  seconds: z
    .number()
    .describe('requests may be sent only while this has surely not passed since the claim was asked for'),
  files: z.array(
    z.object({
      file: id,
      url: z.string(),
      want: z.enum(['delete', 'stage', 'poll', 'release', 'cancel', 'locate', 'look']),
      bytes: z.number().optional().describe('of what is to be looked at, as the checksums'),
      adler32: z.string().optional(),
      md5: z.string().optional(),
    }),
  ),
})
export type StorageTask = z.output<typeof storageTask>

export const taskResult = z.strictObject({
  file: id,
  result: z
    .enum(['done', 'asked', 'pending', 'online', 'failed'])
    .describe(
      'asked, pending, online: of a recall. done: there is no more to do; of an archive task: it is on tape; of a look: it is the file',
    ),
  error: transferError.optional(),
})

const sealed = { context: z.string(), token: z.string().describe('JWE to the key of the session') }

export const workerRoutes = {
  openSession: route({
    method: 'POST',
    path: '/v1/worker/sessions',
    role: 'worker',
    tag,
    summary: 'Begin a session: its lease covers all that it will claim',
    description:
      'A server that does not know the worker’s version of the contract answers 409 CONTRACT_TOO_OLD or CONTRACT_TOO_NEW. The body is read before that: it is the same in all versions.',
    body: z.strictObject({
      contract: z
        .number()
        .int()
        .min(1)
        .max(1_000_000)
        .default(1)
        .describe('version of the contract that the worker speaks'),
      worker: workerName,
      version: words(64).optional().describe('of its software, for people'),
      key: publicKey,
    }),
    answer: z.object({ session, leaseSeconds: z.number(), heartbeatSeconds: z.number() }),
    status: 201,
  }),
  heartbeat: route({
    method: 'POST',
    path: '/v1/worker/sessions/{id}/heartbeat',
    role: 'worker',
    tag,
    summary: 'Extend the lease, tell progress, hear of cancellations',
    params: z.object({ id: idInPath }),
    body: z.strictObject({
      progress: z
        .array(z.strictObject({ ...held, state: z.literal('COPYING'), bytes }))
        .max(20_000)
        .default([])
        .describe('COPYING: the storage took the COPY, so what lies at the destination may be of this attempt'),
    }),
    answer: z.object({ leaseSeconds: z.number(), cancel: z.array(id) }),
    status: 200,
  }),
  closeSession: route({
    method: 'DELETE',
    path: '/v1/worker/sessions/{id}',
    role: 'worker',
    tag,
    summary: 'End a session: what it still held is settled by others',
    params: z.object({ id: idInPath }),
    answer: empty,
    status: 200,
  }),
  claim: route({
    method: 'POST',
    path: '/v1/worker/claims',
    role: 'worker',
    tag,
    summary: 'Claim transfers of one link; waits a little when there is no work',
    body: z.strictObject({
      session,
      limit: z.number().int().min(0).max(MOST_CLAIMED),
      waitSeconds: z.number().min(0).max(30).default(0),
      held: z
        .strictObject({
          transfers: z.array(z.strictObject(held)).max(MOST_HELD),
          imports: z.array(id).max(1000),
          tasks: z.array(id).max(1000).default([]),
        })
        .optional()
        .describe(
          'after an answer to a claim was lost, or an outcome was not taken, and once in a while: all that the session knows to hold, or has not seen its outcome answered. What else the server has under this session is settled by others.',
        ),
    }),
    answer: z.object({
      transfers: z.array(claimedTransfer),
      more: z
        .boolean()
        .describe(
          'more is queued on the link of the transfers: limits hold it back until something that ended is reported',
        ),
      storages: z.array(workerStorage),
      renewals: z.array(id).describe('grants that want an exchange or a refresh: acquire them'),
      imports: z.array(importJob),
      tasks: z.array(storageTask),
      drained: z.boolean().describe('an admin has drained this worker: it gets no work until it is resumed'),
    }),
    status: 200,
  }),
  reportOutcomes: route({
    method: 'POST',
    path: '/v1/worker/outcomes',
    role: 'worker',
    tag,
    summary: 'Report how attempts ended; may be repeated',
    body: z.strictObject({ session, outcomes: z.array(outcome).min(1).max(1000) }),
    answer: z.object({
      results: z.array(z.object({ ...held, answer: z.enum(['applied', 'already-applied', 'refused']) })),
    }),
    status: 200,
  }),
  askPermit: route({
    method: 'POST',
    path: '/v1/worker/permits',
    role: 'worker',
    tag,
    summary: 'Ask to remove what a failed attempt left at its destination',
    body: z.strictObject({
      session,
      ...held,
      written: z
        .boolean()
        .describe('what lies there may be of this attempt; false: only what an earlier one may have left is removed'),
    }),
    answer: z.object({
      seconds: z.number().describe('the DELETE may be sent only while this has surely not passed'),
      grant: id,
    }),
    status: 200,
  }),
  acquireToken: route({
    method: 'POST',
    path: '/v1/worker/grants/{id}/acquire',
    role: 'worker',
    tag,
    summary: 'Get the access token of a grant, or the lease to renew it',
    description:
      '`exchange` and `refresh`: the caller holds the renewal lease and does it at the issuer, after `delayMs`, then reports. Only it gets the refresh token.',
    params: z.object({ id: idInPath }),
    body: z.strictObject({
      session,
      lifeSeconds: z.number().min(0).max(86_400),
      refused: z
        .strictObject({
          generation: z.number().int().positive(),
          canary: z.boolean().describe('the storage does not believe the token: it was the first request with it'),
          message: words(1000).describe('the storage’s words'),
        })
        .optional()
        .describe(
          'a storage answered 401 to that token: another one is wanted. When that is refused too the grant is held.',
        ),
    }),
    answer: z.discriminatedUnion('kind', [
      z.object({ kind: z.literal('token'), generation: z.number(), expiresInSeconds: z.number(), ...sealed }),
      z.object({
        kind: z.enum(['exchange', 'refresh']),
        generation: z.number(),
        leaseSeconds: z.number(),
        delayMs: z.number(),
        issuer: z.string(),
        audience: z.string(),
        scopes: z.array(z.string()),
        ...sealed,
      }),
      z.object({ kind: z.literal('wait'), delayMs: z.number() }),
      z.object({ kind: z.literal('refused'), code: z.string(), message: z.string() }),
    ]),
    status: 200,
  }),
  reportRenewal: route({
    method: 'POST',
    path: '/v1/worker/grants/{id}/renewals',
    role: 'worker',
    tag,
    summary: 'Hand in the tokens of an exchange or refresh: they are durable before anybody uses them',
    params: z.object({ id: idInPath }),
    body: z.strictObject({
      session,
      generation: z.number().int().nonnegative(),
      step: z.enum(['exchange', 'refresh']),
      result: z.discriminatedUnion('kind', [
        z.strictObject({
          kind: z.literal('renewed'),
          accessToken: z.string().max(16_384),
          refreshToken: z.string().max(16_384).optional(),
          expiresInSeconds: z.number().positive().max(34_560_000),
        }),
        z.strictObject({
          kind: z.literal('failed'),
          code: z.string().regex(/^[A-Z][A-Z_]{2,60}$/),
          message: words(1000),
          retryAfterSeconds: z.number().nonnegative().max(86_400).optional(),
        }),
      ]),
    }),
    answer: z.object({ generation: z.number() }),
    status: 200,
  }),
  reportTask: route({
    method: 'POST',
    path: '/v1/worker/tasks/{id}',
    role: 'worker',
    tag,
    summary: 'Report what was done of a task; what is not named is left to be done',
    params: z.object({ id: idInPath }),
    body: z.strictObject({
      session,
      fence,
      request: words(1000).optional().describe('what the storage calls the recall that was asked for'),
      forgotten: z.boolean().default(false).describe('the storage does not know the request any more'),
      results: z.array(taskResult).max(MOST_IN_TASK),
      error: transferError.optional().describe('what ended it: the rest was not tried'),
    }),
    answer: empty,
    status: 200,
  }),
  reportImport: route({
    method: 'POST',
    path: '/v1/worker/imports/{id}/files',
    role: 'worker',
    tag,
    summary: 'Hand in what was found while listing; tells what is to be listed next',
    description:
      'In parts, which count from 1 under each fence, one after the other. A part whose answer was lost is handed in again: it counts once. A directory’s names come in the order of their UTF-16 units, so that `doneUntil` tells where to go on.',
    params: z.object({ id: idInPath }),
    body: z.strictObject({
      session,
      fence,
      part: z.number().int().positive().max(Number.MAX_SAFE_INTEGER),
      ...importPart,
      error: transferError.optional().describe('what ended it: the rest was not tried'),
    }),
    answer: z.object({ directories: z.array(importDirectory).describe('to be listed next; none: it is over') }),
    status: 200,
  }),
}
