import { oneLine } from '../domain/one-line.ts'
import type { Secret } from '../domain/secret.ts'

const LIMIT = 1000

/** What tokens look like by themselves when a storage quotes them: JWTs, even cut short, and macaroons. */
const TOKEN_LIKE = [/\beyJ[\w-]{8,}[\w.+/=-]*/g, /\bMDA[\w+/=-]{24,}/g]

/** Names that a credential follows; the last group is what follows. Whether it is one: `isProse`. */
const NAMED = [
  /\b(?:bearer|basic)((?:\s|%20|\+|[:=]|["'])+)([^\s"'<>&;,]+)/gi,
  /\b(?:authz|access_token|refresh_token|client_secret)(["']?\s*[=:]\s*["']?)([^\s"'<>&;,]+)/gi,
  /\b(?:token|authorization)(=)([^\s"'<>&;,]+)/gi,
  /\b(?:token|authorization)(["']?\s*:\s*["']?|\s+["']?)([\w~+.=-][\w.~+/=-]{15,})/gi,
]

/**
 * Whether a name and what follows it are words of a sentence (`a bearer token is needed`, `access_token: expired`, a
 * challenge's `Bearer realm=`) and no credential: after white space, one word of few letters that are not mixed in case. When
 * in doubt it is a credential.
 */
function isProse(separator: string, value: string): boolean {
  if (!/^:?\s+$/.test(separator)) return false
  return /^(?:(?:[A-Z]?[a-z]{1,20}|[A-Z]{1,14})[.:!?)]*|(?:realm|error|error_description|scope)=)$/.test(value)
}

/**
 * A storage's own words, fit to be stored and shown: one line of at most 1000 printable characters, tags of an HTML page
 * taken out, and nothing in it that is one of `secrets` or looks like a token.
 */
export function storageWords(text: string, secrets: readonly (Secret | undefined)[] = []): string {
  let words = text
  for (const secret of secrets) {
    const value = secret?.reveal() ?? ''
    if (value.length >= 8) words = words.replaceAll(value, '[secret]')
  }
  for (const pattern of TOKEN_LIKE) words = words.replace(pattern, '[secret]')
  for (const pattern of NAMED) {
    words = words.replace(pattern, (whole, separator: string, value: string) =>
      isProse(separator, value) ? whole : '[secret]',
    )
  }
  if (/<html|<!doctype|<\?xml/i.test(words)) words = words.replace(/<[^>]{0,2000}>/g, ' ')
  words = words.replace(/[\p{C}\p{Z}\s\uFFFD]+/gu, ' ').trim()
  return words.length <= LIMIT ? words : `${oneLine(words, LIMIT - 3)}...`
}
