import type { HttpClient } from './client.ts'
import { HttpFailure } from './failure.ts'

/** No issuer's or API's answer that is read whole is larger. */
const LIMIT_BYTES = 1024 * 1024

/** The part of `fetch`'s second argument that is honoured: redirects are never followed, credentials and caches unknown. */
export interface FetchInit {
  method?: string
  headers?: NonNullable<RequestInit['headers']>
  body?: RequestInit['body'] | null
  signal?: AbortSignal | null
}

/**
 * A `fetch` over our client, for libraries that bring none of their own (openid-client's `customFetch`). The answer is
 * read whole, at most 1 MiB of it. Throws `HttpFailure` where the real one throws `TypeError`.
 */
export function asFetch(client: HttpClient): (input: string | URL, init?: FetchInit) => Promise<Response> {
  return async (input, init = {}) => {
    // Node's own Request turns every kind of body and headers into bytes and pairs, and sets the content type.
    const request = new Request(input, {
      method: init.method ?? 'GET',
      ...(init.headers === undefined ? {} : { headers: init.headers }),
      ...(init.body === undefined || init.body === null ? {} : { body: init.body }),
    })
    const body = init.body === undefined || init.body === null ? undefined : Buffer.from(await request.arrayBuffer())
    const answer = await client.request({
      method: request.method,
      url: request.url,
      headers: Object.fromEntries(request.headers),
      ...(body === undefined ? {} : { body }),
      ...(init.signal === undefined || init.signal === null ? {} : { signal: init.signal }),
    })
    const text = await answer.text(LIMIT_BYTES)
    if (answer.status < 200 || answer.status > 599) {
      throw new HttpFailure('parse', request.method, new URL(request.url), `status ${answer.status}`)
    }
    const empty = answer.status === 204 || answer.status === 205 || answer.status === 304
    return new Response(empty ? null : text, { status: answer.status, headers: { ...answer.headers } })
  }
}
