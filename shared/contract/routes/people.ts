import { z } from 'zod'
import {
  accountName,
  adler32,
  bytes,
  did,
  empty,
  id,
  md5,
  page,
  pageQuery,
  publicKey,
  rseName,
  time,
  voName,
  words,
} from '../fields.ts'
import { route } from '../route.ts'

const accounts = 'Accounts'
const data = 'Upload, download, import'
const service = 'Service'

const grantAnswer = z.object({
  id,
  issuer: z.string(),
  rse: rseName,
  audience: z.string(),
  purpose: z.string(),
  scopes: z.array(z.string()),
  state: z.string(),
  generation: z.number(),
  minted: z.number(),
  exchanged: z.number(),
  refreshed: z.number(),
  expiresAt: time.optional(),
  jti: z.string().optional(),
  sha256: z.string().optional(),
  error: z.string().optional(),
})

/** A token that may remove names each file: more would not fit into a header. */
export const MOST_REPLACED = 8

/** A place that the bearer of the sealed token may use. `token` is a JWE to the caller's `key`, bound to `context`. */
const sealedAccess = {
  context: z.string(),
  token: z.string().describe('sealed to `key` (JWE): it never stands in clear in an answer'),
  expiresAt: time,
}

export const peopleRoutes = {
  whoami: route({
    method: 'GET',
    path: '/v1/whoami',
    role: 'anyone',
    tag: accounts,
    summary: 'Show who the server takes you for',
    answer: z.object({
      issuer: z.string(),
      subject: z.string(),
      account: accountName.optional(),
      vo: voName.optional(),
      admin: z.boolean(),
      worker: z.boolean(),
    }),
    status: 200,
  }),
  listVos: route({
    method: 'GET',
    path: '/v1/vos',
    role: 'member',
    tag: accounts,
    summary: 'List the VOs: they come from the configuration',
    answer: z.object({ items: z.array(z.object({ name: voName, issuers: z.array(z.string()) })) }),
    status: 200,
  }),
  addAccount: route({
    method: 'POST',
    path: '/v1/accounts',
    role: 'admin',
    tag: accounts,
    summary: 'Add an account',
    body: z.strictObject({ name: accountName, vo: voName.optional() }),
    answer: z.object({ name: accountName, vo: voName }),
    status: 201,
    idempotent: true,
  }),
  listAccounts: route({
    method: 'GET',
    path: '/v1/accounts',
    role: 'member',
    tag: accounts,
    summary: 'List accounts',
    query: z.strictObject(pageQuery),
    answer: page(z.object({ name: accountName, vo: voName })),
    status: 200,
  }),
  addIdentity: route({
    method: 'POST',
    path: '/v1/identities',
    role: 'admin',
    tag: accounts,
    summary: 'Map an identity (issuer and subject) to an account',
    description: 'The issuer must be one whose tokens this server takes, to the letter: a last slash counts.',
    body: z.strictObject({
      issuer: z.url().max(300),
      subject: words(255).min(1),
      account: accountName,
      vo: voName.optional(),
      move: z.boolean().default(false).describe('also when it is another account’s until now'),
    }),
    answer: empty,
    status: 201,
  }),
  removeIdentity: route({
    method: 'DELETE',
    path: '/v1/identities',
    role: 'admin',
    tag: accounts,
    summary: 'Take an identity away from its account',
    query: z.strictObject({ issuer: z.url().max(300), subject: words(255).min(1) }),
    answer: empty,
    status: 200,
  }),
  listGrants: route({
    method: 'GET',
    path: '/v1/grants',
    role: 'member',
    tag: 'Tokens',
    summary: 'List the grants: what tokens there are, for what, without the tokens',
    query: z.strictObject({ rse: rseName.optional(), ...pageQuery }),
    answer: page(grantAnswer),
    status: 200,
  }),
  planUpload: route({
    method: 'POST',
    path: '/v1/uploads',
    role: 'manager',
    permission: 'write',
    tag: data,
    summary:
      'Begin an upload: paths are decided, and a token for the dataset’s directory at this storage is given out, sealed',
    description:
      'PUT each file at its URL with the token, then confirm. Files that are there already are marked `done`; where all are, there is no token. What the account could not lock there for want of quota is refused.',
    body: z.strictObject({
      rse: rseName,
      dataset: did,
      files: z
        .array(z.strictObject({ did, bytes, adler32, md5: md5.optional() }))
        .min(1)
        .max(1000),
      replace: z
        .boolean()
        .default(false)
        .describe(
          'the token may also remove what lies at the paths of these files, at most 8: for uploads that broke off',
        ),
      key: publicKey,
    }),
    answer: z.object({
      files: z.array(z.object({ did, url: z.string(), done: z.boolean() })),
      checksum: z.enum(['adler32', 'md5']),
      ...z.object(sealedAccess).partial().shape,
    }),
    status: 201,
  }),
  confirmUpload: route({
    method: 'POST',
    path: '/v1/uploads/confirmations',
    role: 'manager',
    permission: 'write',
    tag: data,
    summary: 'Confirm uploaded and verified files: their replicas become available',
    description:
      'Only what this account has planned, and what no worker has touched since. Each file is judged by itself; those in `refused` are to be planned again.',
    body: z.strictObject({ rse: rseName, files: z.array(did).min(1).max(1000) }),
    answer: z.object({
      available: z.number(),
      refused: z.array(z.object({ did, code: z.string(), message: z.string() })),
    }),
    status: 200,
  }),
  planDownload: route({
    method: 'POST',
    path: '/v1/downloads',
    role: 'manager',
    tag: data,
    summary: 'Begin a download: URLs, and a sealed token for the directories they lie in',
    body: z.strictObject({
      did,
      rse: rseName.optional(),
      cursor: z.string().max(400).optional(),
      limit: z.number().int().min(1).max(1000).default(1000),
      key: publicKey,
    }),
    answer: z.object({
      files: z.array(
        z.object({
          did,
          url: z.string(),
          bytes: z.number(),
          adler32: z.string().optional(),
          md5: z.string().optional(),
          access: z.number(),
        }),
      ),
      accesses: z.array(z.object(sealedAccess)),
      unavailable: z.array(did),
      next: z.string().optional(),
    }),
    status: 200,
  }),
  status: route({
    method: 'GET',
    path: '/v1/status',
    role: 'member',
    tag: service,
    summary: 'What the installation is doing',
    answer: z.object({
      version: z.string(),
      rules: z.record(z.string(), z.number()),
      transfers: z.record(z.string(), z.number()),
      workers: z.array(
        z.object({ name: z.string(), client: z.string(), active: z.number(), sinceSeconds: z.number() }),
      ),
      grants: z.record(z.string(), z.number()),
      tokenRequests: z.object({ minted: z.number(), exchanged: z.number(), refreshed: z.number() }),
    }),
    status: 200,
  }),
  livez: route({
    method: 'GET',
    path: '/livez',
    role: 'public',
    tag: service,
    summary: 'The process runs',
    answer: empty,
    status: 200,
  }),
  readyz: route({
    method: 'GET',
    path: '/readyz',
    role: 'public',
    tag: service,
    summary: 'The server takes requests: 503 while it starts or stops',
    answer: empty,
    status: 200,
  }),
}
