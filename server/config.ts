import { z } from 'zod'
import { checkName } from '../shared/domain/names.ts'
import { Secret } from '../shared/domain/secret.ts'
import { type ConfigSources, readConfig, SECRET } from '../shared/runtime/config.ts'
import {
  certificateAuthorities,
  file,
  httpsUrl,
  issuerFields,
  logLevel,
  metrics,
  port,
  type ReadSecretFile,
  resolveSecret,
  secretIn,
  shutdownSeconds,
} from '../shared/runtime/config-fields.ts'
import type { DatabaseOptions } from './database/open.ts'

const postgresUrl = z
  .url({ protocol: /^postgres(ql)?$/, error: 'a URL like postgres://user@host:5432/waybill is wanted' })
  .max(1000)
  .refine(value => {
    const { password, searchParams } = new URL(value)
    return password === '' && !searchParams.has('password')
  }, 'the password must not stand in it: use passwordFile')

const voName = z.string().superRefine((value, context) => {
  const reason = checkName('vo', value)
  if (reason !== undefined) context.addIssue({ code: 'custom', message: reason })
})

const rseName = z.string().superRefine((value, context) => {
  const reason = checkName('rse', value)
  if (reason !== undefined) context.addIssue({ code: 'custom', message: reason })
})

const activityName = z.string().superRefine((value, context) => {
  const reason = checkName('activity', value)
  if (reason !== undefined) context.addIssue({ code: 'custom', message: reason })
})

/** One of `file` and `url`. A password stands in a file of its own, or in the environment. */
function databaseFields(readSecretFile: ReadSecretFile) {
  return z
    .strictObject({
      file: file.optional().describe('SQLite file; made if it is not there; default: waybill.sqlite'),
      url: postgresUrl.optional().describe('PostgreSQL, for many servers: postgres://user@host:5432/waybill'),
      password: z.string().min(1).meta(SECRET).optional(),
      passwordFile: file.optional().describe('holds the password for `url`'),
      connections: z.number().int().min(2).max(1000).default(10).describe('to PostgreSQL, of each server'),
    })
    .prefault({})
    .transform((given, context): DatabaseOptions => {
      const refuse = (path: string, message: string): never => {
        context.addIssue({ code: 'custom', path: [path], message })
        return z.NEVER
      }
      const { url, connections } = given
      if (url === undefined) return { kind: 'sqlite', file: given.file ?? 'waybill.sqlite' }
      if (given.file !== undefined) return refuse('url', 'name a SQLite file or a PostgreSQL URL, not both')
      if (given.password !== undefined)
        return { kind: 'postgresql', url, connections, password: new Secret(given.password) }
      if (given.passwordFile === undefined) return { kind: 'postgresql', url, connections }
      try {
        return { kind: 'postgresql', url, connections, password: secretIn(given.passwordFile, readSecretFile) }
      } catch (error) {
        return refuse('passwordFile', error instanceof Error ? error.message : String(error))
      }
    })
}

/** What the rules server can be told. Times are in the unit of their names. */
export function serverConfigSchema(readSecretFile: ReadSecretFile) {
  const issuer = z
    .strictObject({
      ...issuerFields,
      exchange: z
        .enum(['always', 'when-needed', 'never'])
        .default('when-needed')
        .describe('whether workers exchange the tokens that this server mints (RFC 8693)'),
      requestsPerSecond: z
        .number()
        .positive()
        .max(10_000)
        .default(50)
        .describe('of all servers and workers together; of VOs that share an issuer the least counts'),
      requestsAtOnce: z.number().int().min(1).max(1000).default(16).describe('under way, likewise'),
    })
    .transform(resolveSecret(readSecretFile))

  return z
    .strictObject({
      listen: z
        .strictObject({
          host: z.string().min(1).default('127.0.0.1').describe('address that the API listens on'),
          port: port.default(8443).describe('port of the API'),
        })
        .prefault({}),
      tls: z.strictObject({
        certificate: file.describe('PEM file: the certificate, then its chain'),
        key: file.describe('PEM file: the private key'),
      }),
      metrics,
      database: databaseFields(readSecretFile),
      audience: z.string().min(1).max(300).describe('what API tokens must be for, e.g. https://waybill.example.org'),
      ca: certificateAuthorities,
      vault: z.strictObject({
        keyFile: file.describe('the key that stored tokens are sealed with; made if not there'),
      }),
      logLevel,
      shutdownSeconds,
      sessionLeaseSeconds: z.number().min(1).max(3600).default(20).describe('how long a silent worker keeps its work'),
      autonomySeconds: z
        .number()
        .min(0)
        .max(2_592_000)
        .default(0)
        .describe('how long workers must be able to go on without this server'),
      retry: z
        .strictObject({
          maxAttempts: z.number().int().min(1).max(100).default(5),
          soonSeconds: z
            .number()
            .min(0)
            .max(3600)
            .default(5)
            .describe('longest first delay after a blip; doubled each time'),
          laterSeconds: z
            .number()
            .min(0)
            .max(3600)
            .default(60)
            .describe('longest first delay after a storage asked for rest (429, 5xx); doubled each time'),
          maxDelaySeconds: z.number().min(0).max(604_800).default(3600),
        })
        .prefault({}),
      deletion: z
        .strictObject({
          graceSeconds: z
            .number()
            .min(0)
            .max(31_536_000)
            .default(3600)
            .describe('replicas that nobody asks for any more are left for so long'),
        })
        .prefault({}),
      vos: z.array(z.strictObject({ name: voName, issuers: z.array(issuer).min(1) })).min(1),
      apiIssuers: z
        .array(httpsUrl)
        .optional()
        .describe('issuers whose tokens callers may present; default: all issuers of the VOs'),
      admins: z.array(z.strictObject({ issuer: httpsUrl, subject: z.string().min(1).max(255) })).default([]),
      workers: z
        .array(
          z.strictObject({
            issuer: httpsUrl,
            client: z.string().min(1).max(255).describe('client id of the worker pool'),
            subject: z
              .string()
              .min(1)
              .max(255)
              .optional()
              .describe('`sub` of the tokens that this client gets by client credentials; default: the client id'),
            vos: z.array(voName).optional(),
            rses: z.array(rseName).optional(),
            activities: z.array(activityName).optional(),
            links: z.array(z.strictObject({ source: rseName, destination: rseName })).optional(),
          }),
        )
        .default([]),
    })
    .superRefine(({ vos, workers }, context) => {
      const names = vos.map(vo => vo.name)
      names.forEach((name, index) => {
        if (names.indexOf(name) === index) return
        context.addIssue({ code: 'custom', path: ['vos', index, 'name'], message: `${name} is there twice` })
      })
      workers.forEach((worker, index) => {
        const unknown = (worker.vos ?? []).filter(name => !names.includes(name))
        if (unknown.length === 0) return
        const message = `not among the VOs: ${unknown.join(', ')}`
        context.addIssue({ code: 'custom', path: ['workers', index, 'vos'], message })
      })
    })
    .transform(config => ({
      ...config,
      apiIssuers: config.apiIssuers ?? [...new Set(config.vos.flatMap(vo => vo.issuers.map(({ url }) => url)))],
    }))
}

export type ServerConfig = z.output<ReturnType<typeof serverConfigSchema>>

/** Throws `CONFIG_INVALID` with all that is wrong. */
export function readServerConfig(sources: ConfigSources, readSecretFile: ReadSecretFile): ServerConfig {
  return readConfig(serverConfigSchema(readSecretFile), sources)
}
