import { z } from 'zod'
import { IMPORT_STATES, type ImportState } from '../../domain/import-state.ts'
import { accountName, did, id, idInPath, page, pageQuery, rseName, storagePath, time } from '../fields.ts'
import { route } from '../route.ts'

const tag = 'Upload, download, import'

const importState = z.enum(Object.keys(IMPORT_STATES) as [ImportState, ...ImportState[]])
const checksum = z
  .enum(['storage', 'none'])
  .describe(
    'storage: as the storage tells it, which must tell one. none: sizes alone; nothing is asked of single files.',
  )

const importAnswer = z.object({
  id,
  account: accountName,
  rse: rseName,
  path: z.string(),
  dataset: did,
  checksum,
  state: importState,
  files: z.number().describe('taken over so far: at the storage, in the catalogue and in the dataset'),
  bytes: z.number(),
  present: z.number().describe('of these, how many were there already'),
  leftOut: z.number().describe('found, and not taken over: GET /v1/imports/{id}/problems tells which and why'),
  directories: z.object({ listed: z.number(), left: z.number().describe('as far as they are known') }),
  error: z.string().optional().describe('what it waits for, or was refused for'),
  retryAt: time.optional().describe('when a storage that was away is tried again'),
  createdAt: time,
  updatedAt: time,
})

const idParams = z.object({ id: idInPath })

export const importRoutes = {
  addImport: route({
    method: 'POST',
    path: '/v1/imports',
    role: 'manager',
    permission: 'write',
    tag,
    summary:
      'Take over a directory tree that lies at a storage: a worker lists it, the files become replicas and a dataset',
    description:
      'A file is called after the dataset and its path below the directory. The same import again takes over what is new, and tells of files that have changed.',
    body: z.strictObject({ rse: rseName, path: storagePath, dataset: did, checksum: checksum.default('storage') }),
    answer: importAnswer,
    status: 202,
    idempotent: true,
  }),
  listImports: route({
    method: 'GET',
    path: '/v1/imports',
    role: 'member',
    tag,
    summary: 'List imports',
    query: z.strictObject({ rse: rseName.optional(), state: importState.optional(), ...pageQuery }),
    answer: page(importAnswer),
    status: 200,
  }),
  getImport: route({
    method: 'GET',
    path: '/v1/imports/{id}',
    role: 'member',
    tag,
    summary: 'Show an import with its progress',
    params: idParams,
    answer: importAnswer,
    status: 200,
  }),
  listImportProblems: route({
    method: 'GET',
    path: '/v1/imports/{id}/problems',
    role: 'member',
    tag,
    summary: 'List what an import found and did not take over, and why',
    params: idParams,
    query: z.strictObject(pageQuery),
    answer: page(
      z.object({
        path: z.string().describe('below the imported directory'),
        code: z
          .string()
          .describe(
            'NAME_INVALID: no DID can have this name. FILE_MISMATCH: the catalogue has it with another size or checksum. PATH_TAKEN, REPLICA_EXISTS, REPLICA_BEING_DELETED, REPLICA_BAD, DID_TYPE: the catalogue has something else there. Others: what the storage said of this file alone.',
          ),
        message: z.string(),
      }),
    ),
    status: 200,
  }),
  cancelImport: route({
    method: 'POST',
    path: '/v1/imports/{id}/cancel',
    role: 'manager',
    permission: 'manage',
    tag,
    summary: 'End an import: what it has registered stays',
    params: idParams,
    answer: importAnswer,
    status: 200,
  }),
  resumeImport: route({
    method: 'POST',
    path: '/v1/imports/{id}/resume',
    role: 'manager',
    permission: 'manage',
    tag,
    summary:
      'Go on with an import that was refused or cancelled, where it was; one that waits for a storage tries it now',
    params: idParams,
    answer: importAnswer,
    status: 202,
  }),
}
