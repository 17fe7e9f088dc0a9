import { z } from 'zod'
import { checkName, type NameKind, parseDid } from '../domain/names.ts'
import { WHY_CODES, type WhyCode } from '../domain/why-codes.ts'

/** Fields that several rooms share. Every one is checked here, so that a handler only sees good values. */

function named(kind: NameKind, example: string) {
  return z
    .string()
    .max(300)
    .superRefine((value, context) => {
      const reason = checkName(kind, value)
      if (reason !== undefined) context.addIssue({ code: 'custom', message: reason })
    })
    .meta({ example })
}

export const voName = named('vo', 'exp')
export const scopeName = named('scope', 'exp')
export const didName = named('did', 'run1/raw')
export const accountName = named('account', 'alice')
export const rseName = named('rse', 'SITE-A')
export const attributeKey = named('attribute', 'country')
export const activity = named('activity', 'Production')

/** What a worker calls itself. It stands in paths, where dots alone would lead elsewhere. */
export const workerName = z
  .string()
  .regex(
    /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$/,
    'a worker’s name has letters, digits, ".", "_", "-", 64 at most, and is not "." or ".."',
  )
  .meta({ example: 'node1.example.org' })

/** `scope:name`, kept as text on the wire. */
export const did = z
  .string()
  .max(300)
  .superRefine((value, context) => {
    try {
      parseDid(value)
    } catch (error) {
      context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) })
    }
  })
  .meta({ example: 'exp:run1' })

export const id = z.number().int().positive().max(Number.MAX_SAFE_INTEGER).meta({ example: 17 })
/** The same in a path, where everything is text. */
export const idInPath = z.coerce
  .number<number | string>('an id is a whole number, e.g. 17')
  .int()
  .positive()
  .max(Number.MAX_SAFE_INTEGER)
  .meta({ example: 17 })
/** Epoch milliseconds. */
export const time = z.number().int().nonnegative().meta({ example: 1_795_000_000_000 })
export const bytes = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER)

export const adler32 = z
  .string()
  .regex(/^[0-9a-fA-F]{1,8}$/, 'adler32 is 8 hexadecimal digits')
  .transform(value => value.toLowerCase().padStart(8, '0'))
  .meta({ example: '03da0195' })
export const md5 = z
  .string()
  .regex(/^[0-9a-fA-F]{32}$/, 'md5 is 32 hexadecimal digits')
  .transform(value => value.toLowerCase())

/** An absolute path at a storage: no empty or dot segments, no trailing slash, only characters that need no thought. */
export const storagePath = z
  .string()
  .max(1000)
  .regex(
    /^(\/[A-Za-z0-9._~+=@,-]+)+$/,
    'a path is absolute, e.g. /data/run1, without empty segments or a trailing slash',
  )
  .refine(value => !value.split('/').some(segment => segment === '.' || segment === '..'), 'dot segments are refused')
  .meta({ example: '/data/run1' })

export const didType = z.enum(['FILE', 'DATASET', 'CONTAINER'])
export const transferState = z.enum([
  'WAITING',
  'QUEUED',
  'CLAIMED',
  'STAGING',
  'COPYING',
  'SETTLING',
  'ARCHIVING',
  'DONE',
  'FAILED',
  'CANCELLED',
])
export const whyCode = z.enum(Object.keys(WHY_CODES) as [WhyCode, ...WhyCode[]])
export const ruleState = z.enum(['REPLICATING', 'OK', 'STUCK', 'SUSPENDED', 'WAITING_APPROVAL', 'INJECT'])
export const replicaState = z.enum([
  'AVAILABLE',
  'UNAVAILABLE',
  'COPYING',
  'BEING_DELETED',
  'BAD',
  'TEMPORARY_UNAVAILABLE',
])

/** A person's words: one line of at most so many characters. No database takes all control characters. */
export function words(longest: number) {
  return z
    .string()
    .max(longest)
    .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'control characters are refused')
}

const coordinate = z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'a coordinate is 32 bytes in base64url')
/** A public key that tokens are sealed to: they never stand in clear in an answer. P-256 only. */
export const publicKey = z.strictObject({
  kty: z.literal('EC'),
  crv: z.literal('P-256'),
  x: coordinate,
  y: coordinate,
})

/**
 * Lists are read a page at a time: `next` is the `cursor` of the following page, absent on the last. Whoever accepts
 * `application/x-ndjson` gets all of it, an item a line.
 */
export const pageQuery = {
  cursor: z.string().max(400).optional(),
  limit: z.coerce.number<number | string>().int().min(1).max(1000).default(100),
}
export function page<T extends z.ZodType>(item: T) {
  return z.object({ items: z.array(item), next: z.string().optional() })
}

export const empty = z.object({})

/** RFC 9457. `code` is stable; `field` is what is at fault; `id` stands in the server's log. */
export const problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.number().int(),
  code: z.string(),
  detail: z.string(),
  field: z.string().optional(),
  errors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
  id: z.string(),
})

const seconds = z.number().positive().max(604_800)

function deadlines<T extends z.ZodType>(each: T) {
  return z.strictObject({
    connectSeconds: each.describe('until a storage is connected'),
    headersSeconds: each.describe('until a storage answers'),
    noMarkerSeconds: each.describe('without a perf marker'),
    noProgressSeconds: each.describe('without a further byte'),
    totalBaseSeconds: each.describe('for a whole copy'),
    totalPerMibSeconds: each.describe('for a whole copy, for each MiB more'),
  })
}

/** Deadlines of a copy, seconds (facts/http-tpc.md section 8). What is absent is somebody else's to say. */
export const watchdogs = deadlines(seconds.optional())
export type WatchdogSeconds = z.output<typeof watchdogs>
/** What is absent stays as it is; null takes back what was set. */
export const watchdogChange = deadlines(seconds.nullable().optional())
export type WatchdogChange = z.output<typeof watchdogChange>

export const checksumPolicy = z.enum(['none', 'source', 'destination', 'both'])
