import { isIP } from 'node:net'

/** How often one request may be sent on (facts/http-tpc.md section 5). */
export const MAX_REDIRECTS = 3

/** Public suffixes of two labels in the shape they commonly have; their subdomains belong to strangers. */
const SHARED_SUFFIX = /^(ac|co|com|edu|gob|gov|go|net|or|org|res)\.[a-z]{2}$/

/**
 * Where a storage may send us when its RSE names no hosts: into its host's parent domain, any port; a single label or an
 * address: to itself only. A pattern is a host name, or `.domain` for everything below it.
 */
export function defaultRedirectHosts(host: string): string[] {
  const labels = host.toLowerCase().split('.')
  if (labels.length < 2 || addressKind(host) !== 'name') return [host]
  const parent = labels.slice(1).join('.')
  return labels.length === 2 || SHARED_SUFFIX.test(parent) ? [host, `.${host}`] : [`.${parent}`]
}

export type RedirectDecision =
  | { readonly follow: true; readonly url: URL }
  | { readonly follow: false; readonly why: string }

/**
 * Whether the request to `from` may be repeated, token and all, at `location`. The reason names the host only: a Location's
 * query often holds a token.
 */
export function decideRedirect(
  from: URL,
  location: string | undefined,
  hasToken: boolean,
  allowedHosts: readonly string[],
): RedirectDecision {
  if (location === undefined) return refuse('a redirect without Location')
  if (!URL.canParse(location, from.href)) return refuse('a redirect whose Location is not a URL')
  const url = new URL(location, from.href)
  const host = url.hostname.toLowerCase()
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return refuse(`a redirect to ${url.protocol}`)
  if (url.username !== '' || url.password !== '') return refuse(`a redirect to ${host} with a user name in it`)
  if (from.protocol === 'https:' && url.protocol === 'http:' && hasToken) {
    return refuse(`a redirect from https to http at ${host} would show the token`)
  }
  const self = host === from.hostname.toLowerCase()
  const named = self || allowedHosts.some(pattern => pattern.toLowerCase() === host)
  if (addressKind(host) === 'internal' && !named) return refuse(`a redirect to the internal address ${host}`)
  const below = allowedHosts.some(pattern => pattern.startsWith('.') && host.endsWith(pattern.toLowerCase()))
  if (!named && !below) return refuse(`a redirect to ${host}, which is not among the storage's redirect hosts`)
  return { follow: true, url }
}

function refuse(why: string): RedirectDecision {
  return { follow: false, why }
}

const INTERNAL_V4 = /^(0|10|127|169\.254|172\.(1[6-9]|2\d|3[01])|192\.168|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7]))\./

/** internal: loopback, link-local, private or unspecified, by address or by name (RFC 6761, 1918, 4193, 6598). */
function addressKind(host: string): 'name' | 'address' | 'internal' {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase()
  if (bare === 'localhost' || bare.endsWith('.localhost')) return 'internal'
  const version = isIP(bare)
  if (version === 0) return 'name'
  if (version === 4) return INTERNAL_V4.test(bare) ? 'internal' : 'address'
  // Mapped IPv4 (::ffff:7f00:1) is refused whole: no storage is registered by it.
  return /^(::1?$|::ffff:|f[cd][0-9a-f]{2}:|fe[89ab][0-9a-f]:)/.test(bare) ? 'internal' : 'address'
}
