import { WaybillError } from '../../shared/domain/errors.ts'
import type { GrantPurpose } from '../../shared/domain/grant-state.ts'

export interface ScopeRequest {
  purpose: GrantPurpose
  /** Absolute paths at the storage, not encoded. */
  directories: readonly string[]
  /** The path at the storage that the issuer's `/` stands for. */
  basePath: string
  /** The RSE's own path at the storage: nothing outside it is ever asked for. */
  prefix: string
}

/**
 * The least that each purpose needs (facts/tokens.md section 1, statements 10 to 14): a destination is verified by reading
 * it; `modify` does not imply `read`, nor does `stage` since version 1.2 of the profile.
 */
const VERBS: Record<GrantPurpose, readonly string[]> = {
  read: ['storage.read'],
  list: ['storage.read'],
  write: ['storage.create', 'storage.read'],
  'clean-up': ['storage.modify', 'storage.read'],
  delete: ['storage.modify', 'storage.read'],
  stage: ['storage.read', 'storage.stage'],
  upload: ['storage.create', 'storage.read'],
  replace: ['storage.modify', 'storage.read'],
  download: ['storage.read'],
}

/** A token has to fit into a header beside everything else: two scopes for each of these, of some hundred characters. */
export const MAX_DIRECTORIES = 32

/**
 * The narrowest scopes for work in some directories: normalised, sorted, no directory inside another, never a scope without
 * its path. Pure. Throws `SCOPE_EMPTY`, `SCOPE_PATH_INVALID`, `SCOPE_OUTSIDE_PREFIX`, `SCOPE_OUTSIDE_BASE` or
 * `SCOPE_TOO_MANY`.
 */
export function scopesFor({ purpose, directories, basePath, prefix }: ScopeRequest): string[] {
  const base = segmentsOf(basePath)
  const top = segmentsOf(prefix)
  const paths = outermost(directories.map(segmentsOf))
  if (paths.length === 0) throw refusal('SCOPE_EMPTY', 'no directory is named: there is nothing to ask a token for')
  if (paths.length > MAX_DIRECTORIES) {
    throw refusal(
      'SCOPE_TOO_MANY',
      `${paths.length} directories in one token are too many: ask for ${MAX_DIRECTORIES} at most`,
    )
  }
  const scopePaths = paths.map(path => {
    if (!isWithin(top, path)) {
      throw refusal('SCOPE_OUTSIDE_PREFIX', `${format(path)} is not below the RSE's prefix ${format(top)}`)
    }
    if (!isWithin(base, path)) {
      throw refusal('SCOPE_OUTSIDE_BASE', `${format(path)} is not below the issuer's base path ${format(base)}`)
    }
    return format(path.slice(base.length).map(encode))
  })
  return VERBS[purpose].flatMap(verb => scopePaths.map(path => `${verb}:${path}`)).sort()
}

/** Segment by segment: `/path` is no part of `/pathology`, which Rucio takes it for (facts/tokens.md section 3). */
function isWithin(outer: readonly string[], inner: readonly string[]): boolean {
  return outer.length <= inner.length && outer.every((segment, index) => segment === inner[index])
}

function outermost(paths: readonly string[][]): string[][] {
  const byLength = [...paths].sort((a, b) => a.length - b.length)
  const kept: string[][] = []
  for (const path of byLength) if (!kept.some(outer => isWithin(outer, path))) kept.push(path)
  return kept
}

/** The segments of an absolute path; one slash at its end means nothing. */
function segmentsOf(path: string): string[] {
  if (!path.startsWith('/')) throw invalid(path, 'it does not begin with a slash')
  const segments = path.replace(/\/$/, '').split('/').slice(1)
  for (const segment of segments) {
    if (segment === '') throw invalid(path, 'it has an empty segment')
    if (isDots(segment)) throw invalid(path, 'it has a dot segment')
    if (/[\p{Cc}\p{Cs}]/u.test(segment)) throw invalid(path, 'it has an unprintable character')
  }
  return segments
}

/** Also when percent-encoded any number of times: some storage may decode once more (statement 16). */
function isDots(segment: string): boolean {
  let text = segment
  for (let before = ''; before !== text; ) {
    before = text
    text = text.replace(/%25/g, '%').replace(/%2e/gi, '.')
  }
  return text === '.' || text === '..'
}

/**
 * RFC 3986 section 3.3: what a segment may hold as it is, stays; so the scope reads the same to a storage that forgets to
 * decode it.
 */
function encode(segment: string): string {
  return encodeURIComponent(segment).replace(/%(?:24|26|2B|2C|3A|3B|3D|40)/g, decodeURIComponent)
}

function format(segments: readonly string[]): string {
  return `/${segments.join('/')}`
}

function invalid(path: string, why: string): WaybillError {
  return refusal('SCOPE_PATH_INVALID', `${JSON.stringify(path)} cannot be a path of a scope: ${why}`)
}

/** 400: whoever named the directories, the prefix or the base path has to name others. */
function refusal(code: string, message: string): WaybillError {
  return new WaybillError(code, message, { status: 400 })
}
