import type { CustomFetch } from 'openid-client'
import type { Secret } from '../domain/secret.ts'
import { retryAfterOf } from '../http/retry-after.ts'
import type { Clock } from '../runtime/clock.ts'
import { IssuerError } from './issuer-error.ts'
import { withoutTokens } from './printable.ts'

/** The part of the platform's `fetch` that is needed here, so that the one HTTP client and tests can stand behind it. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>

export interface IssuerFetchOptions {
  fetch: Fetch
  clock: Clock
  /** For a whole request, the answer's body included, in milliseconds. */
  timeoutMs: number
  /** What must not come back to us in an error, beside the tokens in the request. */
  secrets?: readonly Secret[]
}

/** Token answers are a few kB, key sets tens of kB. */
const MAX_ANSWER_BYTES = 1_048_576
/** Form fields whose values must not come back to us in an error. */
const SECRET_FIELDS = ['subject_token', 'refresh_token', 'token']

/**
 * `fetch` for issuers: https only, one deadline for everything, the body bounded, and only HTTP 200 returned. Every other
 * ending is an `IssuerError`, classified here once for discovery, keys, tokens and revocation.
 */
export function createIssuerFetch({ fetch, clock, timeoutMs, secrets = [] }: IssuerFetchOptions): CustomFetch {
  return async (url, { method, headers, body, signal }) => {
    const where = describe(url)
    if (!url.startsWith('https://')) {
      throw new IssuerError('ISSUER_NONSENSE', `${where} is not https: Waybill sends no credentials there`)
    }
    const form = body instanceof URLSearchParams ? body : undefined
    const answer = await beforeDeadline(clock, timeoutMs, where, async late => {
      const init: RequestInit = {
        method,
        headers,
        redirect: 'manual',
        signal: signal ? AbortSignal.any([signal, late]) : late,
      }
      if (form) init.body = form.toString()
      try {
        const response = await fetch(url, init)
        return { response, text: await readBounded(response, where) }
      } catch (error) {
        if (error instanceof IssuerError) throw error
        throw new IssuerError('ISSUER_UNREACHABLE', `no answer from ${where}: ${networkReason(error)}`)
      }
    })
    const failure = failureOf(answer.response, where)
    if (failure) throw failure
    if (answer.response.status !== 200) {
      const sent = SECRET_FIELDS.flatMap(field => form?.getAll(field) ?? [])
      throw refusalOf(answer.response.status, answer.text, where, [...sent, ...secrets.map(secret => secret.reveal())])
    }
    // Rebuilt, since openid-client wants a `Response` whose body is unread, and nothing else of it is of use.
    return new Response(answer.text, { headers: { 'content-type': answer.response.headers.get('content-type') ?? '' } })
  }
}

/** The URL without anything that could be a secret. */
function describe(url: string): string {
  if (!URL.canParse(url)) return 'an unreadable URL'
  const { origin, pathname } = new URL(url)
  return `${origin}${pathname}`
}

async function beforeDeadline<T>(
  clock: Clock,
  ms: number,
  where: string,
  work: (late: AbortSignal) => Promise<T>,
): Promise<T> {
  const finished = new AbortController()
  const late = new AbortController()
  const deadline = clock.sleep(ms, finished.signal).then(() => {
    if (!finished.signal.aborted) late.abort()
    throw new IssuerError('ISSUER_UNREACHABLE', `${where} did not answer within ${ms} ms`)
  })
  try {
    return await Promise.race([deadline, work(late.signal)])
  } finally {
    finished.abort()
  }
}

async function readBounded(response: Response, where: string): Promise<string> {
  if (!response.body) return ''
  const chunks: Uint8Array[] = []
  let size = 0
  const reader = response.body.getReader()
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.byteLength
    if (size > MAX_ANSWER_BYTES) {
      await reader.cancel()
      throw new IssuerError('ISSUER_NONSENSE', `${where} answered more than ${MAX_ANSWER_BYTES} bytes`)
    }
    chunks.push(part.value)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Codes only (`ECONNREFUSED`, `connect`): messages of HTTP libraries may quote what was sent. */
function networkReason(error: unknown): string {
  let inner = error
  for (let depth = 0; depth < 5 && inner instanceof Error; depth++) {
    if ('kind' in inner && typeof inner.kind === 'string') return inner.kind
    if ('code' in inner && typeof inner.code === 'string') return inner.code
    inner = inner.cause
  }
  return error instanceof Error ? error.name : 'unknown reason'
}

function failureOf(response: Response, where: string): IssuerError | undefined {
  const { status } = response
  if (status === 429 || status === 503) {
    const { headers } = response
    const retryAfterSeconds = retryAfterOf({
      'retry-after': headers.get('retry-after') ?? undefined,
      date: headers.get('date') ?? undefined,
    })
    const when = retryAfterSeconds === undefined ? '' : `, and asks to wait ${retryAfterSeconds} s`
    const options = retryAfterSeconds === undefined ? {} : { retryAfterSeconds }
    return new IssuerError('ISSUER_BUSY', `${where} is busy (HTTP ${status})${when}`, options)
  }
  if (status >= 500) return new IssuerError('ISSUER_UNREACHABLE', `${where} failed with HTTP ${status}`)
  return undefined
}

function refusalOf(status: number, text: string, where: string, secrets: readonly string[]): IssuerError {
  const refusal = oauthError(text)
  if (refusal) {
    const reason = withoutTokens(refusal.error, secrets)
    const words = refusal.description === undefined ? '' : `: ${withoutTokens(refusal.description, secrets)}`
    return new IssuerError('TOKEN_REFUSED', `${where} refused with ${reason}${words}`, { reason })
  }
  if (status === 401) {
    return new IssuerError('TOKEN_REFUSED', `${where} refused with HTTP 401 and no reason`, {
      reason: 'invalid_client',
    })
  }
  return new IssuerError('ISSUER_NONSENSE', `${where} answered HTTP ${status} without an OAuth error`)
}

/** The error document of RFC 6749 section 5.2. */
function oauthError(text: string): { error: string; description: string | undefined } | undefined {
  try {
    const body: unknown = JSON.parse(text)
    if (typeof body !== 'object' || body === null || !('error' in body) || typeof body.error !== 'string')
      return undefined
    const description = 'error_description' in body ? body.error_description : undefined
    return { error: body.error, description: typeof description === 'string' ? description : undefined }
  } catch {
    return undefined
  }
}
