/**
 * Storage scopes of the WLCG profile, `storage.<verb>:<path>`, as values (facts/tokens.md section 1, statements 9 to
 * 17). Pure. The issuer reads them to grant, the storages to obey.
 */
/** Every storage accepts it (statement 6). */
export const ANY_AUDIENCE = 'https://wlcg.cern.ch/jwt/v1/any'

export const STORAGE_VERBS = ['read', 'create', 'modify', 'stage', 'poll'] as const
export type StorageVerb = (typeof STORAGE_VERBS)[number]

export interface Capability {
  readonly verb: StorageVerb
  /** Decoded segments; none means `/`. */
  readonly path: readonly string[]
  /** The scope's path ended in `/`: it is good for what lies below, not for a file of this very name. */
  readonly below: boolean
}

export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string }

export function isStorageScope(scope: string): boolean {
  return scope.startsWith('storage.')
}

export function parseCapability(scope: string): Parsed<Capability> {
  const match = /^storage\.([a-z]+)(?::(.*))?$/s.exec(scope)
  const verb = STORAGE_VERBS.find(known => known === match?.[1])
  if (match === null || verb === undefined) return bad(`"${scope}" is not a storage scope of the WLCG profile`)
  if (match[2] === undefined || match[2] === '') return bad(`the path is missing in "${scope}"`)
  const path = parsePath(match[2])
  if (!path.ok) return path
  return { ok: true, value: { verb, path: path.value, below: match[2].endsWith('/') } }
}

/**
 * The decoded segments of an absolute, percent-encoded path. Empty segments are dropped; dot segments are refused
 * however often they are encoded, and so are encoded slashes and NUL.
 */
export function parsePath(encoded: string): Parsed<string[]> {
  if (!encoded.startsWith('/')) return bad(`"${encoded}" is not an absolute path`)
  const path: string[] = []
  for (const segment of encoded.split('/')) {
    if (segment === '') continue
    const decoded = decode(segment)
    if (decoded === undefined) return bad(`"${segment}" is not percent-encoded UTF-8`)
    if (decoded.includes('/') || decoded.includes('\0')) return bad(`"${segment}" holds an encoded slash or NUL`)
    if (isDotSegment(segment)) return bad('dot segments are refused, encoded or not')
    path.push(decoded)
  }
  return { ok: true, value: path }
}

function decode(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment)
  } catch {
    return undefined
  }
}

/** `..`, `%2e%2e`, `%252e%252e` and deeper. Each turn shortens the text, so it ends. */
function isDotSegment(segment: string): boolean {
  let text = segment
  for (;;) {
    if (text === '.' || text === '..') return true
    const plainer = text.replaceAll(/%25/g, '%').replaceAll(/%2e/gi, '.')
    if (plainer === text) return false
    text = plainer
  }
}

/** By component, never by character: `/foo/bar` is a prefix of `/foo/bar/qux`, not of `/foo/bargain` (statement 15). */
export function isPrefix(prefix: readonly string[], path: readonly string[]): boolean {
  return prefix.length <= path.length && prefix.every((segment, index) => segment === path[index])
}

/** True when everything that `narrow` allows, `wide` allows by the same verb. */
export function includes(wide: Capability, narrow: Capability): boolean {
  if (wide.verb !== narrow.verb || !isPrefix(wide.path, narrow.path)) return false
  return !wide.below || narrow.below || narrow.path.length > wide.path.length
}

function bad(reason: string): { ok: false; reason: string } {
  return { ok: false, reason }
}
