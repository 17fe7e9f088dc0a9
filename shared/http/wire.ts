import { validateHeaderName, validateHeaderValue } from 'node:http'
import { WaybillError } from '../domain/errors.ts'
import type { HttpRequest } from './client.ts'

/** Names whose documented capitals are not those of their words. */
const IRREGULAR: Readonly<Record<string, string>> = {
  etag: 'ETag',
  te: 'TE',
  dpop: 'DPoP',
  'content-md5': 'Content-MD5',
  'www-authenticate': 'WWW-Authenticate',
  clientinfo: 'ClientInfo',
  scitag: 'SciTag',
  transferheaderauthorization: 'TransferHeaderAuthorization',
  requirechecksumverification: 'RequireChecksumVerification',
}

/**
 * A header's name as it goes out. XRootD before 5.7 takes `authorization` for another header than `Authorization` and
 * stores 0 bytes for `content-length` (facts/http-tpc.md section 1), so lower-case names get their documented capitals.
 */
export function wireName(name: string): string {
  if (/[A-Z]/.test(name)) return name
  return IRREGULAR[name] ?? name.replace(/(^|-)[a-z]/g, letter => letter.toUpperCase())
}

/** The headers as they go out. Throws `HTTP_HEADER` for what HTTP cannot carry; Node's own error could quote a token. */
export function wireHeaders(headers: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const names = Object.keys(headers)
  for (const name of names) {
    try {
      validateHeaderName(name)
      validateHeaderValue(name, headers[name] ?? '')
    } catch {
      throw new WaybillError('HTTP_HEADER', `the header ${JSON.stringify(name)} has characters that HTTP cannot carry`)
    }
  }
  if (names.every(name => wireName(name) === name)) return headers
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [wireName(name), value]))
}

/** The request's address. Throws `HTTP_ADDRESS`; the address is not quoted, its query may hold a token. */
export function requestAddress({ method, url }: Pick<HttpRequest, 'method' | 'url'>): URL {
  const address = typeof url !== 'string' ? url : URL.canParse(url) ? new URL(url) : undefined
  if (address === undefined || (address.protocol !== 'https:' && address.protocol !== 'http:')) {
    throw new WaybillError('HTTP_ADDRESS', `${method}: the address is not an absolute http or https URL`)
  }
  return address
}
