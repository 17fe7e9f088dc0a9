import { WaybillError } from '../domain/errors.ts'

/** RFC 6749 section 3.3. */
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/

/**
 * The `scope` parameter, sorted and without repetitions. Throws `SCOPE_MISSING` for no scope at all: IAM answers that with
 * all the scopes of the client (facts/tokens.md section 2). Throws `SCOPE_INVALID`.
 */
export function scopeParameter(scopes: readonly string[]): string {
  if (scopes.length === 0) {
    throw new WaybillError(
      'SCOPE_MISSING',
      'no token is ever asked for without scopes: name the scopes that are needed',
    )
  }
  const invalid = scopes.find(scope => !SCOPE.test(scope))
  if (invalid !== undefined) {
    throw new WaybillError('SCOPE_INVALID', `${JSON.stringify(invalid)} cannot be a scope: percent-encode it`)
  }
  return [...new Set(scopes)].sort().join(' ')
}
