import { isDeepStrictEqual } from 'node:util'
import express, { type Express, type NextFunction, type Request, type Response } from 'express'
import { z } from 'zod'
import { docsPage } from '../shared/contract/docs-page.ts'
import { parsePart } from '../shared/contract/invalid-request.ts'
import { openApiDocument } from '../shared/contract/openapi.ts'
import type { Received, Reply, Route } from '../shared/contract/route.ts'
import { ROUTES, type RouteName, type Routes } from '../shared/contract/routes.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import type { Random } from '../shared/runtime/random.ts'
import type { Caller, CallerAccount, WorkerRights } from './accounts/caller.ts'
import { asksForLines, type Page, sendLines } from './lines.ts'
import { problemOf } from './problems.ts'
import { readJson } from './request-body.ts'

/** What the route's role promises about the caller. */
type CallerOf<R extends Route> = R['role'] extends 'manager'
  ? Caller & { readonly account: CallerAccount }
  : R['role'] extends 'worker'
    ? Caller & { readonly worker: WorkerRights }
    : Caller

/** What a handler gets: everything checked. `signal` aborts when the caller has hung up. */
export type HandlerRequest<R extends Route> = Received<R> & {
  readonly caller: CallerOf<R>
  readonly idempotencyKey?: string
  readonly signal: AbortSignal
}

/** Rows that need no handler: the app answers them itself. */
type OwnRow = 'livez' | 'readyz'

/** One for each row of the route table. */
export type Handlers = {
  readonly [N in Exclude<RouteName, OwnRow>]: (request: HandlerRequest<Routes[N]>) => Promise<Reply<Routes[N]>>
}

export interface AppOptions {
  readonly handlers: Handlers
  /** Given the `Authorization` header. Rejects with a `WaybillError` of status 401, or 503 when it cannot be known. */
  readonly authenticate: (authorization: string | undefined) => Promise<Caller>
  readonly log: Logger
  readonly random: Random
  /** In seconds, from an arbitrary start. */
  readonly elapsed: () => number
  readonly ready: () => boolean
  /** Told the work on each request: it may go on when the caller has hung up. */
  readonly onWork?: (work: Promise<void>) => void
  /** Once for each request that was answered; `route` is the row's name, or `none`. */
  readonly onRequest?: (route: string, status: number, seconds: number) => void
  /** Every answer is compared with its schema: for tests, since it costs. */
  readonly checkAnswers?: boolean
  /** Every answer's body as it goes out, problem documents too: for tests that look for secrets in it. */
  readonly onAnswer?: (body: string) => void
}

const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'Strict-Transport-Security': 'max-age=31536000',
  'X-Content-Type-Options': 'nosniff',
}

/** The HTTP side of the route table: every row becomes a path, and nothing else does but the table's own description. */
export function createApp(options: AppOptions): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.enable('strict routing')
  app.enable('case sensitive routing')
  app.set('query parser', 'simple')
  app.use((request, response, next) => {
    response.set(SECURITY_HEADERS)
    observe(options, request, response)
    if (options.onAnswer !== undefined) tapBody(response, options.onAnswer)
    next()
  })
  for (const [name, row] of rows()) {
    app[verb(row)](expressPath(row.path), (request, response) => {
      const work = serve(options, name, row, request, response)
      options.onWork?.(work)
      return work
    })
  }
  serveDocuments(app)
  for (const [path, methods] of methodsByPath()) {
    app.all(expressPath(path), (request, response) => {
      response.set('Allow', methods.join(', '))
      throw new WaybillError('METHOD_NOT_ALLOWED', `${request.method} is not for this path; ${methods.join(', ')} is`, {
        status: 405,
      })
    })
  }
  app.use(() => {
    throw new WaybillError('PATH_UNKNOWN', 'there is nothing at this path; see /docs for what there is', {
      status: 404,
    })
  })
  // Express knows it by its four parameters.
  app.use((error: unknown, _request: Request, response: Response, _next: NextFunction) => {
    if (response.headersSent) breakOff(options, response, error)
    else refuse(options, response, error)
  })
  return app
}

function rows(): [RouteName, Route][] {
  return Object.entries(ROUTES) as [RouteName, Route][]
}

function verb({ method }: Route): 'get' | 'post' | 'put' | 'patch' | 'delete' {
  return method.toLowerCase() as Lowercase<Route['method']>
}

/** `/v1/rules/{id}` as Express writes it. Values are decoded after matching, so `%2F` in a DID's name stays in it. */
function expressPath(path: string): string {
  return path.replace(/\{(\w+)\}/g, ':$1')
}

function methodsByPath(): Map<string, string[]> {
  const methods = new Map([
    ['/openapi.json', ['GET']],
    ['/docs', ['GET']],
  ])
  for (const [, { path, method }] of rows()) methods.set(path, [...(methods.get(path) ?? []), method])
  return methods
}

async function serve(
  options: AppOptions,
  name: RouteName,
  row: Route,
  request: Request,
  response: Response,
): Promise<void> {
  response.locals.route = name
  if (name === 'readyz' && !options.ready()) {
    throw new WaybillError('NOT_READY', 'the server starts or stops', { status: 503 })
  }
  if (name === 'livez' || name === 'readyz') {
    response.status(row.status).json({})
    return
  }
  const caller = await options.authenticate(request.headers.authorization)
  response.locals.subject = caller.subject
  demandRole(row, caller)
  const signal = hangUpSignal(response)
  const received = { ...(await receive(row, request)), ...idempotencyKey(row, request), caller, signal }
  const handler = options.handlers[name] as (received: unknown) => Promise<unknown>
  const answer = async (given: unknown): Promise<unknown> => {
    const reply = await handler(given)
    if (options.checkAnswers === true) checkAnswer(name, row, reply)
    return reply
  }
  if (asksForLines(row, request)) {
    const page = (query: object) => answer({ ...received, query: { ...received.query, ...query } }) as Promise<Page>
    await sendLines(response, page, options.ready, options.onAnswer)
    return
  }
  const reply = await answer(received)
  if (!signal.aborted) response.status(row.status).json(reply)
}

function demandRole({ role }: Route, caller: Caller): void {
  const who = `${caller.subject} of ${caller.issuer}`
  const member = caller.account !== undefined || caller.admin || caller.worker !== undefined
  const unmapped = (role === 'member' && !member) || (role === 'manager' && caller.account === undefined)
  if (unmapped) {
    throw forbidden(`no account is mapped to ${who}; ask an admin to add this identity to one`)
  }
  if (role === 'admin' && !caller.admin) throw forbidden(`${who} is no admin; ask for it in the server's configuration`)
  if (role === 'worker' && caller.worker === undefined) {
    throw forbidden(
      `${who} is no worker; add its client to workers in the server's configuration, with this subject if that is not the client id`,
    )
  }
}

function forbidden(message: string): WaybillError {
  return new WaybillError('FORBIDDEN', message, { status: 403 })
}

/** Parsed by the row's schemas; the body is read last, when everything else is right. */
async function receive(row: Route, request: Request): Promise<{ params: unknown; query: object; body: unknown }> {
  const params = parsePart(row.params ?? z.object({}), request.params)
  const query = parsePart(row.query ?? z.strictObject({}), request.query) as object
  const body = row.body === undefined ? undefined : parsePart(row.body, await readJson(request))
  return { params, query, body }
}

function idempotencyKey(row: Route, request: Request): { idempotencyKey?: string } {
  const key = request.headers['idempotency-key']
  if (row.idempotent !== true || key === undefined) return {}
  if (typeof key === 'string' && /^[\x21-\x7e]{1,200}$/.test(key)) return { idempotencyKey: key }
  throw new WaybillError('INVALID', 'Idempotency-Key: 1 to 200 printable ASCII characters without spaces', {
    status: 400,
    field: 'Idempotency-Key',
  })
}

function hangUpSignal(response: Response): AbortSignal {
  const controller = new AbortController()
  const closed = (): void => {
    if (!response.writableFinished) controller.abort()
  }
  if (response.closed) closed()
  else response.once('close', closed)
  return controller.signal
}

/** Says both what is missing and what the schema does not know: a field too many could be one that must not go out. */
function checkAnswer(name: RouteName, row: Route, reply: unknown): void {
  const sent: unknown = JSON.parse(JSON.stringify(reply))
  const result = row.answer.safeParse(sent)
  const same = result.success && isDeepStrictEqual(JSON.parse(JSON.stringify(result.data)), sent)
  if (!same)
    throw new Error(`the answer of ${name} does not fit its schema: ${result.error?.message ?? 'extra fields'}`)
}

function serveDocuments(app: Express): void {
  const document = openApiDocument()
  const page = docsPage(document)
  app.get('/openapi.json', (_request, response) => {
    response.locals.route = 'openapi'
    response.json(document)
  })
  app.get('/docs', (_request, response) => {
    response.locals.route = 'docs'
    response.set('Content-Security-Policy', page.contentSecurityPolicy).type('html').send(page.html)
  })
}

/** One line and one figure for each request: never a header, a query or a body. */
function observe(options: AppOptions, request: Request, response: Response): void {
  const began = options.elapsed()
  response.once('close', () => {
    const { route = 'none', subject, problem } = response.locals as Record<string, unknown>
    const seconds = options.elapsed() - began
    const status = response.writableFinished ? response.statusCode : 499
    options.log.info(
      { method: request.method, route: pathOf(route), status, ms: Math.round(seconds * 1000), subject, problem },
      'request',
    )
    options.onRequest?.(String(route), status, seconds)
  })
}

/** `json` ends in `send`, once it has made a text of the answer. */
function tapBody(response: Response, onAnswer: (body: string) => void): void {
  const send = response.send.bind(response)
  response.send = body => {
    if (typeof body === 'string') onAnswer(body)
    return send(body)
  }
}

function pathOf(route: unknown): string {
  const table: Readonly<Record<string, Route>> = ROUTES
  return table[String(route)]?.path ?? String(route)
}

/** In the middle of a list. A caller that has hung up is nobody's fault. */
function breakOff({ log, random, ready }: AppOptions, response: Response, error: unknown): void {
  const hungUp = error instanceof Error && 'code' in error && error.code === 'ERR_STREAM_PREMATURE_CLOSE'
  if (!hungUp && ready()) log.error({ id: random.bytes(8).toString('hex'), err: error }, 'an answer broke off')
  response.destroy()
}

function refuse(options: AppOptions, response: Response, error: unknown): void {
  const id = options.random.bytes(8).toString('hex')
  const problem = problemOf(error, id)
  response.locals.problem = { id, code: problem.code }
  if (problem.status === 503) options.log.warn({ id, err: error }, 'a request could not be served now')
  else if (problem.status >= 500) options.log.error({ id, err: error }, 'a request failed')
  if (problem.status === 401) response.set('WWW-Authenticate', 'Bearer realm="waybill"')
  if (problem.status === 503) response.set('Retry-After', '5')
  response.status(problem.status).type('application/problem+json').send(JSON.stringify(problem))
}
