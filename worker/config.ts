import { z } from 'zod'
import { watchdogs, workerName } from '../shared/contract/fields.ts'
import { type ConfigSources, readConfig } from '../shared/runtime/config.ts'
import {
  certificateAuthorities,
  httpsUrl,
  issuerFields,
  logLevel,
  metrics,
  type ReadSecretFile,
  resolveSecret,
  shutdownSeconds,
} from '../shared/runtime/config-fields.ts'

/** What a transfer worker can be told. Times are in the unit of their names. */
export function workerConfigSchema(readSecretFile: ReadSecretFile, hostname: string) {
  return z
    .strictObject({
      server: httpsUrl.describe('URL of the rules server'),
      audience: z.string().min(1).max(300).optional().describe('audience of its API token; default: the server’s URL'),
      name: workerName.default(hostname).describe('what the server calls this worker; default: the host’s name'),
      ca: certificateAuthorities,
      issuers: z.array(z.strictObject(issuerFields).transform(resolveSecret(readSecretFile))).min(1),
      apiIssuer: httpsUrl.optional().describe('which issuer its API token comes from; default: the first'),
      concurrency: z.number().int().min(1).max(10_000).default(64).describe('transfers at a time'),
      metrics,
      logLevel,
      shutdownSeconds,
      settleSeconds: z
        .number()
        .min(0.1)
        .max(600)
        .default(5)
        .describe('between two looks at a file that may still grow: storages must write more often than that'),
      watchdogs: watchdogs.prefault({}).describe('of copies, where the storages say nothing else'),
    })
    .superRefine(({ apiIssuer, issuers }, context) => {
      if (apiIssuer === undefined || issuers.some(({ url }) => url === apiIssuer)) return
      context.addIssue({ code: 'custom', path: ['apiIssuer'], message: 'it is not among the issuers' })
    })
    .transform(config => ({
      ...config,
      audience: config.audience ?? config.server,
      // The list is never empty.
      apiIssuer: config.apiIssuer ?? config.issuers[0]?.url ?? '',
    }))
}

export type WorkerConfig = z.output<ReturnType<typeof workerConfigSchema>>

/** Throws `CONFIG_INVALID` with all that is wrong. */
export function readWorkerConfig(
  sources: ConfigSources,
  readSecretFile: ReadSecretFile,
  hostname: string,
): WorkerConfig {
  return readConfig(workerConfigSchema(readSecretFile, hostname), sources)
}
