import {
  ANY_AUDIENCE,
  type Capability,
  isPrefix,
  isStorageScope,
  type Parsed,
  parseCapability,
  type StorageVerb,
} from '../wlcg.ts'

/**
 * Who may do what: the WLCG profile as two pure functions. Numbers are the statements of facts/tokens.md section 1.
 * `judgeToken` says whether a token whose signature is good is valid here, and for what (else: 401); `permits` says
 * whether what it is good for includes an operation (else: 403).
 */
export interface TokenRules {
  readonly issuer: string
  /** The names that this storage answers to, compared exactly (7). */
  readonly audiences: readonly string[]
  /** Scope paths are relative to it (17). Decoded segments. */
  readonly basePath: readonly string[]
}

export type Claims = Readonly<Record<string, unknown>>

const REQUIRED = ['sub', 'exp', 'iss', 'wlcg.ver', 'aud', 'iat', 'jti'] as const
const KNOWN_MAJOR = '1'
const MAX_SUBJECT = 255

/** The token's capabilities, their paths as they are at this storage; or why it is not valid. */
export function judgeToken(claims: Claims, rules: TokenRules, nowSeconds: number): Parsed<Capability[]> {
  const missing = REQUIRED.find(name => claims[name] === undefined)
  if (missing !== undefined) return invalid(`the claim ${missing} is missing`) // (1)
  const fault =
    wrongSubject(claims.sub) ??
    wrongVersion(claims['wlcg.ver']) ??
    (claims.iss === rules.issuer ? undefined : 'it is from another issuer') ??
    wrongTime(claims, nowSeconds) ??
    wrongAudience(claims.aud, rules.audiences)
  if (fault !== undefined) return invalid(fault)
  if (claims.scope !== undefined && typeof claims.scope !== 'string') return invalid('the claim scope is no string')
  return capabilities(claims.scope ?? '', rules.basePath)
}

export type Operation =
  | 'stat'
  | 'list'
  | 'read'
  | 'create'
  | 'replace'
  | 'mkdir'
  | 'rename'
  | 'delete'
  | 'stage'
  | 'poll'

/**
 * Verbs that allow an operation. Modify contains create (12) but not read; stage does not contain read (13), nor poll
 * stat (14). Where a file is (poll) is part of what stat tells (14).
 */
const GRANTED_BY: Record<Operation, readonly StorageVerb[]> = {
  stat: ['read', 'create', 'modify', 'stage'],
  list: ['read'],
  read: ['read'],
  create: ['create', 'modify'],
  replace: ['modify'],
  mkdir: ['create', 'modify'],
  rename: ['create', 'modify'],
  delete: ['modify'],
  stage: ['stage'],
  poll: ['read', 'create', 'modify', 'stage', 'poll'],
}

/** Operations on a file, which a scope path that ends in `/` does not allow for that very name (15). */
const ON_FILES: ReadonlySet<Operation> = new Set(['read', 'create', 'replace', 'stage'])

export function permits(capabilities: readonly Capability[], operation: Operation, path: readonly string[]): boolean {
  return capabilities.some(({ verb, path: granted, below }) => {
    if (!GRANTED_BY[operation].includes(verb)) return false
    // Making the parents of a granted path is part of the grant (11, 15).
    if (operation === 'mkdir' && isPrefix(path, granted)) return true
    if (!isPrefix(granted, path)) return false
    return !(below && ON_FILES.has(operation) && path.length === granted.length)
  })
}

function wrongSubject(sub: unknown): string | undefined {
  const fine = typeof sub === 'string' && sub.length <= MAX_SUBJECT && /^[\x20-\x7e]+$/.test(sub)
  return fine ? undefined : `the claim sub is not ASCII of at most ${MAX_SUBJECT} characters` // (2)
}

/** A newer minor is fine, another major is not (3). */
function wrongVersion(version: unknown): string | undefined {
  const major = typeof version === 'string' ? /^(\d+)\.\d+$/.exec(version)?.[1] : undefined
  return major === KNOWN_MAJOR ? undefined : 'the claim wlcg.ver has a major version that is not known here'
}

/** No grace on `exp`; an `nbf` in the past is as good as none. */
function wrongTime({ exp, nbf }: Claims, nowSeconds: number): string | undefined {
  if (typeof exp !== 'number') return 'the claim exp is no number'
  if (nowSeconds >= exp) return 'it has expired'
  if (nbf === undefined) return undefined
  if (typeof nbf !== 'number') return 'the claim nbf is no number'
  return nowSeconds < nbf ? 'it is not valid yet' : undefined
}

/** String or array; equal to the letter, or the audience that is good everywhere (6, 7). */
function wrongAudience(aud: unknown, own: readonly string[]): string | undefined {
  const named = [aud].flat()
  const good = named.some(name => name === ANY_AUDIENCE || own.some(audience => audience === name))
  return good ? undefined : 'it is for another audience'
}

/** One bad storage scope makes the whole token invalid (9). Other scopes and groups grant nothing here (3, 18). */
function capabilities(scope: string, basePath: readonly string[]): Parsed<Capability[]> {
  const granted: Capability[] = []
  for (const word of scope.split(' ').filter(isStorageScope)) {
    const capability = parseCapability(word)
    if (!capability.ok) return capability
    granted.push({ ...capability.value, path: [...basePath, ...capability.value.path] })
  }
  return { ok: true, value: granted }
}

function invalid(reason: string): { ok: false; reason: string } {
  return { ok: false, reason }
}
