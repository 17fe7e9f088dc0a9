import type { TransferScope } from '../domain/error-catalogue.ts'
import type { Secret } from '../domain/secret.ts'
import type { HttpResponse } from '../http/client.ts'
import type { TapeVerb } from './classify.ts'
import { orStorageError } from './files.ts'
import { decideRedirect } from './redirects.ts'
import { answeredFailure, type StorageDeps, send, timeoutsAt } from './send.ts'
import { collapseSlashes, parseArchiveInfo, parseProgress, parseReceipt } from './tape-answers.ts'
import { TapeEndpoints } from './tape-endpoints.ts'
import { notUnderstood, readJson } from './tape-json.ts'
import { type ArchiveInfo, type Options, StorageError, type TapeClient } from './types.ts'
import { storageWords } from './words.ts'

/** dCache takes so many files in a request by default, and answers 413 to more. */
export const FILES_PER_REQUEST = 500
/** For what was left out of an answer: dCache answers for the first so many of a list, 10,000 by default. */
const FILES_PER_SECOND_REQUEST = 50
/** An answer above this is not read; 100,000 files have about 20 MB. */
const ANSWER_LIMIT_BYTES = 32 * 1024 * 1024
/** EOS hands each file to its tape system before it answers, and dCache pages through its database. */
const BULK_MS = 120_000

/** One request to a storage's tape API. */
interface Call {
  readonly verb: TapeVerb
  readonly scope: TransferScope
  readonly storage: string
  readonly token: Secret | undefined
  /** Below the endpoint, encoded. */
  readonly target: string
  /** Sent exactly like this: dCache refuses keys it doesn't know. */
  readonly body?: unknown
  readonly signal: AbortSignal | undefined
}

interface Tape {
  readonly deps: StorageDeps
  readonly endpoints: TapeEndpoints
}

/** WLCG Tape REST API v1: see `TapeClient`. */
export function createTapeClient(deps: StorageDeps): TapeClient {
  const tape: Tape = { deps, endpoints: new TapeEndpoints(deps) }
  return {
    discover: (storage, token, { scope = 'SOURCE' } = {}) => tape.endpoints.find(storage, token, scope),
    stage: (...parameters) => stage(tape, ...parameters),
    poll: (...parameters) => poll(tape, ...parameters),
    cancel: (storage, token, requestId, paths, options) => {
      const target = `${stageTarget(requestId)}/cancel`
      return orderInBatches(tape, paths, { verb: 'POST /stage/cancel', storage, token, target, ...aim(options) })
    },
    forget: (storage, token, requestId, options) =>
      order(tape, { verb: 'DELETE /stage', storage, token, target: stageTarget(requestId), ...aim(options) }),
    release: (storage, token, requestId, paths, options) => {
      const target = `/release/${segment(requestId)}`
      return orderInBatches(tape, paths, { verb: 'POST /release', storage, token, target, ...aim(options) })
    },
    archiveInfo: (...parameters) => archiveInfo(tape, ...parameters),
  }
}

async function stage(tape: Tape, ...parameters: Parameters<TapeClient['stage']>): ReturnType<TapeClient['stage']> {
  const [storage, token, files, options] = parameters
  // A path that is named twice is one file.
  const lifetimes = new Map(files.map(({ path, diskLifetime }) => [collapseSlashes(path), diskLifetime]))
  const body = {
    files: [...lifetimes].map(([path, diskLifetime]) => ({
      path,
      ...(diskLifetime !== undefined && { diskLifetime }),
    })),
  }
  const request: Call = { verb: 'POST /stage', storage, token, target: '/stage', body, ...aim(options) }
  // Asked before, so that nothing can come between the storage's answer and ours.
  const { uri } = await tape.endpoints.find(storage, token, request.scope)
  const response = await call(tape, request)
  if (response.status !== 201) throw await refusal(request, response)
  const requestId = parseReceipt(await readJson(request, response, ANSWER_LIMIT_BYTES))
  if (requestId === undefined) throw notUnderstood(request, 'without a name for the request')
  return { requestId, location: locationOf(tape.deps, storage, uri, response) }
}

/** Where the storage says that the request can be looked at; undefined when tokens may not go there. */
function locationOf(deps: StorageDeps, storage: string, uri: string, response: HttpResponse): string | undefined {
  const hosts = deps.redirectHosts(new URL(storage).hostname)
  const decision = decideRedirect(new URL(`${uri}/stage`), response.headers.location, true, hosts)
  return decision.follow ? decision.url.href : undefined
}

async function poll(tape: Tape, ...parameters: Parameters<TapeClient['poll']>): ReturnType<TapeClient['poll']> {
  const [storage, token, requestId, paths, options] = parameters
  const request: Call = { verb: 'GET /stage', storage, token, target: stageTarget(requestId), ...aim(options) }
  const response = await call(tape, request)
  if (isGone(response)) return { known: false }
  if (response.status !== 200) throw await refusal(request, response)
  const json = await readJson(request, response, ANSWER_LIMIT_BYTES)
  const files = parseProgress(json, paths, words => storageWords(words, [token]))
  if (files === undefined) throw notUnderstood(request, 'without a list of files')
  return { known: true, files }
}

async function archiveInfo(
  tape: Tape,
  ...parameters: Parameters<TapeClient['archiveInfo']>
): ReturnType<TapeClient['archiveInfo']> {
  const [storage, token, paths, options] = parameters
  const asking = { verb: 'POST /archiveinfo', storage, token, target: '/archiveinfo' } as const
  const found = new Map<string, ArchiveInfo>(paths.map(path => [path, {}]))
  for (const size of [FILES_PER_REQUEST, FILES_PER_SECOND_REQUEST]) {
    const waiting = [...found].filter(([, info]) => isNothing(info)).map(([path]) => path)
    for (const batch of batches(waiting, size)) {
      const request: Call = { ...asking, body: { paths: batch.map(collapseSlashes) }, ...aim(options, 'DESTINATION') }
      for (const [path, info] of await askArchiveInfo(tape, request, batch)) found.set(path, info)
    }
  }
  return found
}

async function askArchiveInfo(
  tape: Tape,
  request: Call,
  paths: readonly string[],
): Promise<ReadonlyMap<string, ArchiveInfo>> {
  const response = await call(tape, request)
  if (response.status !== 200) throw await refusal(request, response)
  const json = await readJson(request, response, ANSWER_LIMIT_BYTES)
  const answered = parseArchiveInfo(json, paths, words => storageWords(words, [request.token]))
  if (answered === undefined) throw notUnderstood(request, 'without a list of files')
  return answered
}

function isNothing({ locality, error }: ArchiveInfo): boolean {
  return locality === undefined && error === undefined
}

async function orderInBatches(tape: Tape, paths: readonly string[], request: Call): Promise<{ known: boolean }> {
  let known = true
  for (const batch of batches([...new Set(paths.map(collapseSlashes))], FILES_PER_REQUEST)) {
    const answered = await order(tape, { ...request, body: { paths: batch } })
    known &&= answered.known
  }
  return { known }
}

/** A request whose answer says nothing but whether it was obeyed, and whether the stage request was known. */
async function order(tape: Tape, request: Call): Promise<{ known: boolean }> {
  const response = await call(tape, request)
  if (isGone(response)) return { known: false }
  if (![200, 201, 202, 204].includes(response.status)) throw await refusal(request, response)
  drop(response)
  return { known: true }
}

async function call(tape: Tape, { verb, scope, storage, token, target, body, signal }: Call): Promise<HttpResponse> {
  const { uri } = await tape.endpoints.find(storage, token, scope)
  const text = body === undefined ? undefined : JSON.stringify(body)
  return orStorageError({ verb, scope }, () =>
    send(tape.deps, tape.deps.client, {
      method: verb.slice(0, verb.indexOf(' ')),
      url: `${uri}${target}`,
      token,
      headers: {
        Accept: 'application/json',
        ...(text !== undefined && {
          'Content-Type': 'application/json',
          'Content-Length': String(Buffer.byteLength(text)),
        }),
      },
      ...(text !== undefined && { body: text }),
      signal,
      timeouts: timeoutsAt(tape.deps, storage, BULK_MS),
    }),
  )
}

async function refusal({ verb, scope, token }: Call, response: HttpResponse): Promise<StorageError> {
  return new StorageError(await answeredFailure({ verb, scope }, response, [token]))
}

function isGone(response: HttpResponse): boolean {
  const gone = response.status === 404 || response.status === 410
  if (gone) drop(response)
  return gone
}

/** Read, so that the connection can be kept. */
function drop(response: HttpResponse): void {
  void response.text(4096).catch(() => undefined)
}

function stageTarget(requestId: string): string {
  return `/stage/${segment(requestId)}`
}

/** EOS has had colons in the names of requests, and does not decode addresses. */
function segment(requestId: string): string {
  return encodeURIComponent(requestId).replaceAll('%3A', ':')
}

function aim(
  options: Options | undefined,
  usual: TransferScope = 'SOURCE',
): { scope: TransferScope; signal: AbortSignal | undefined } {
  return { scope: options?.scope ?? usual, signal: options?.signal }
}

function* batches<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let start = 0; start < items.length; start += size) yield items.slice(start, start + size)
}
