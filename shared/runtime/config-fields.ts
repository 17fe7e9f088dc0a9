import { z } from 'zod'
import { WaybillError } from '../domain/errors.ts'
import { Secret } from '../domain/secret.ts'
import { SECRET } from './config.ts'
import { LOG_LEVELS } from './logger.ts'

/** Fields that the configurations of server and worker share. */

export const port = z.number().int().min(0).max(65_535)
export const file = z.string().min(1)
export const logLevel = z.enum(LOG_LEVELS).default('info').describe('error, warn, info, debug or silent')
export const shutdownSeconds = z
  .number()
  .min(0)
  .max(3600)
  .default(30)
  .describe('after a signal, until what still runs is ended hard')
export const metrics = z
  .strictObject({
    host: z.string().min(1).default('127.0.0.1').describe('where /metrics listens'),
    port: port.describe('port of /metrics; 0 takes a free one'),
  })
  .optional()
export const certificateAuthorities = file
  .optional()
  .describe('CA certificates to believe beside the usual ones: a PEM file, or a directory as IGTF ships it')

export const httpsUrl = z.url({ protocol: /^https$/, error: 'an https URL is wanted' }).max(300)

/** How to be a client of an issuer: what server and worker pool say alike. */
export const issuerFields = {
  url: httpsUrl.describe('as the issuer calls itself in its tokens (`iss`)'),
  clientId: z.string().min(1).max(255),
  clientSecret: z.string().min(1).meta(SECRET).optional(),
  clientSecretFile: file.optional(),
  authentication: z.enum(['basic', 'post']).default('basic'),
  audienceParameter: z.enum(['audience', 'resource', 'aud']).default('audience'),
}

interface WithSecret {
  readonly clientSecret?: string | undefined
  readonly clientSecretFile?: string | undefined
}

/** Reads a file's text; throws when there is none. The only thing outside that a configuration looks at. */
export type ReadSecretFile = (path: string) => string

/** Puts the secret itself, from the environment or its file, in the place of where it can be found. */
export function resolveSecret(readSecretFile: ReadSecretFile) {
  return <T extends WithSecret>(
    issuer: T,
    context: z.RefinementCtx,
  ): Omit<T, keyof WithSecret> & { clientSecret: Secret } => {
    const { clientSecret, clientSecretFile, ...rest } = issuer
    try {
      return { ...rest, clientSecret: secretOf(clientSecret, clientSecretFile, readSecretFile) }
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      context.addIssue({ code: 'custom', path: ['clientSecretFile'], message })
      return z.NEVER
    }
  }
}

function secretOf(value: string | undefined, path: string | undefined, readSecretFile: ReadSecretFile): Secret {
  if (value !== undefined) return new Secret(value)
  if (path === undefined) {
    throw new WaybillError('CONFIG_INVALID', 'the client secret is missing: name the file that holds it')
  }
  return secretIn(path, readSecretFile)
}

/** The secret that a file holds. Throws CONFIG_INVALID when it cannot be read, or holds none. */
export function secretIn(path: string, readSecretFile: ReadSecretFile): Secret {
  const text = readable(path, readSecretFile)
  if (text === '') throw new WaybillError('CONFIG_INVALID', `${path} is empty`)
  return new Secret(text)
}

function readable(path: string, readSecretFile: ReadSecretFile): string {
  try {
    return readSecretFile(path).trim()
  } catch {
    throw new WaybillError('CONFIG_INVALID', `${path} cannot be read; check path and rights`)
  }
}
