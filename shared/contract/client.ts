import type { Readable } from 'node:stream'
import type { z } from 'zod'
import { WaybillError } from '../domain/errors.ts'
import type { Secret } from '../domain/secret.ts'
import type { HttpClient, HttpResponse, HttpTimeouts } from '../http/client.ts'
import { problem as problemSchema } from './fields.ts'
import { type FieldError, parsePart } from './invalid-request.ts'
import { type Answer, type Call, itemOf, NDJSON, type Route } from './route.ts'
import { ROUTES, type RouteName, type Routes } from './routes.ts'

export interface ClientOptions {
  /** `https://host:port`, without a path. */
  readonly baseUrl: string
  readonly http: HttpClient
  /** Asked before each request: a bearer token for the server's audience. Public rows go without. */
  readonly token: () => Promise<Secret | undefined>
  readonly userAgent?: string
  /** Query and body are checked as params always are, before anything is sent: for people, whose words they are. */
  readonly checkCalls?: boolean
}

export interface CallOptions {
  readonly signal?: AbortSignal
  /** For the whole exchange, milliseconds. Default: the HTTP client's own. */
  readonly timeoutMs?: number
  readonly idempotencyKey?: string
}

/**
 * A function for each row of the route table: `client.addRules({ body: { ... } })`. All reject with `ApiError`, `HttpFailure`, or
 * `InvalidRequest` when nothing was sent.
 */
export type Client = {
  readonly [N in RouteName]: (
    ...args: Record<string, never> extends Call<Routes[N]>
      ? [call?: Call<Routes[N]> & CallOptions]
      : [call: Call<Routes[N]> & CallOptions]
  ) => Promise<Answer<Routes[N]>>
}

/** The server said no: its problem document (RFC 9457). `id` is found in the server's log. */
export class ApiError extends WaybillError {
  readonly id: string | undefined
  readonly errors: readonly FieldError[]
  readonly retryAfterSeconds: number | undefined

  constructor(
    code: string,
    message: string,
    options: {
      status: number
      field?: string
      id?: string
      errors?: readonly FieldError[]
      retryAfterSeconds?: number
    },
  ) {
    super(code, message, options)
    this.name = 'ApiError'
    this.id = options.id
    this.errors = options.errors ?? []
    this.retryAfterSeconds = options.retryAfterSeconds
  }
}

/** A call as it looks when its types are gone. */
interface AnyCall extends CallOptions {
  readonly params?: Readonly<Record<string, unknown>>
  readonly query?: Readonly<Record<string, unknown>>
  readonly body?: unknown
}

/** An answer larger than this is not from our server. */
const ANSWER_LIMIT_BYTES = 64 * 1024 * 1024

/** A list takes as long as it is; it must only move on. */
const LINES_TIMEOUTS: HttpTimeouts = { connect: 10_000, headers: 30_000, idle: 60_000 }

export function createClient(options: ClientOptions): Client {
  const functions = Object.entries(ROUTES).map(([name, row]) => [
    name,
    (call: AnyCall = {}) => exchange(options, row, call),
  ])
  return Object.fromEntries(functions) as Client
}

/** Rows that are lists, and what is in them. */
type ItemOf<N extends RouteName> = Answer<Routes[N]> extends { items: (infer Item)[] } ? Item : never

/** All items of a list as they come (NDJSON), however many: no more than a line and what the connection holds is kept. */
export async function* listAll<N extends RouteName>(
  options: ClientOptions,
  name: N,
  call: Call<Routes[N]> & Pick<CallOptions, 'signal'>,
): AsyncGenerator<ItemOf<N>> {
  const row: Route = ROUTES[name]
  const item = itemOf(row)
  if (item === undefined) throw new Error(`${name} is no list`)
  const asked: AnyCall = call
  const response = await options.http.request({
    method: row.method,
    url: addressOf(options.baseUrl, row, asked),
    headers: { ...(await headersOf(options, row, asked)), Accept: NDJSON },
    timeouts: LINES_TIMEOUTS,
    ...(asked.signal === undefined ? {} : { signal: asked.signal }),
  })
  if (response.status !== row.status) throw refusal(row, response, await response.text(ANSWER_LIMIT_BYTES))
  for await (const line of linesOf(response.body)) {
    const result = item.safeParse(json(line))
    if (!result.success) throw nonsense(row, 200, fieldOf(result.error))
    yield result.data as ItemOf<N>
  }
}

/** Without a line's end the last one is told too. Not by `node:readline`: it ends quietly when the stream breaks off. */
async function* linesOf(body: Readable): AsyncGenerator<string> {
  let rest = ''
  for await (const text of body.setEncoding('utf8') as AsyncIterable<string>) {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
  if (rest !== '') yield rest
}

async function exchange(options: ClientOptions, row: Route, call: AnyCall): Promise<unknown> {
  if (options.checkCalls === true) check(row, call)
  const response = await options.http.request({
    method: row.method,
    url: addressOf(options.baseUrl, row, call),
    headers: await headersOf(options, row, call),
    ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
    ...(call.signal === undefined ? {} : { signal: call.signal }),
    ...(call.timeoutMs === undefined ? {} : { timeouts: deadlines(call.timeoutMs) }),
  })
  const text = await response.text(ANSWER_LIMIT_BYTES)
  if (response.status !== row.status) throw refusal(row, response, text)
  return answerOf(row, text)
}

function deadlines(ms: number): { connect: number; headers: number; total: number } {
  return { connect: Math.min(ms, 10_000), headers: ms, total: ms }
}

function check({ query, body }: Route, call: AnyCall): void {
  if (query !== undefined) parsePart(query, call.query ?? {})
  if (body !== undefined) parsePart(body, call.body)
}

/** Parameters are checked here, not only at the server: a name `..` would change the path. */
function addressOf(baseUrl: string, row: Route, { params = {}, query = {} }: AnyCall): URL {
  if (row.params !== undefined) parsePart(row.params, params)
  const path = row.path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(params[name])))
  const url = new URL(path, baseUrl)
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) url.searchParams.set(name, String(value))
  }
  return url
}

async function headersOf(options: ClientOptions, row: Route, call: AnyCall): Promise<Record<string, string>> {
  const token = row.role === 'public' ? undefined : await options.token()
  return {
    Accept: 'application/json',
    'User-Agent': options.userAgent ?? 'waybill',
    ...(token === undefined ? {} : { Authorization: `Bearer ${token.reveal()}` }),
    ...(call.body === undefined ? {} : { 'Content-Type': 'application/json' }),
    ...(call.idempotencyKey === undefined ? {} : { 'Idempotency-Key': call.idempotencyKey }),
  }
}

function answerOf(row: Route, text: string): unknown {
  const result = row.answer.safeParse(json(text))
  if (result.success) return result.data
  throw nonsense(row, 200, fieldOf(result.error))
}

function refusal(row: Route, response: HttpResponse, text: string): ApiError {
  const result = problemSchema.safeParse(json(text))
  if (!result.success) return nonsense(row, response.status, `status ${response.status} without a problem document`)
  const { code, detail, status, field, id, errors } = result.data
  const seconds = Number(response.headers['retry-after'])
  return new ApiError(code, detail, {
    status,
    id,
    ...(field === undefined ? {} : { field }),
    ...(errors === undefined ? {} : { errors }),
    ...(Number.isFinite(seconds) && seconds >= 0 ? { retryAfterSeconds: Math.min(seconds, 86_400) } : {}),
  })
}

/** What answers is no Waybill server of our kind: a proxy, another version, another service. */
function nonsense(row: Route, status: number, what: string): ApiError {
  return new ApiError('API_NONSENSE', `${row.method} ${row.path}: the server's answer is not understood (${what})`, {
    status: status >= 400 ? status : 502,
  })
}

function fieldOf({ issues: [issue] }: z.ZodError): string {
  return issue === undefined || issue.path.length === 0 ? 'not the JSON expected' : issue.path.join('.')
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
