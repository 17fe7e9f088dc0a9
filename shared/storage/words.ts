import type { Secret } from '../domain/secret.ts'

const LIMIT = 1000

/** What tokens look like when a storage quotes them: JWTs, even cut short, macaroons, bearer headers, query parameters. */
const TOKEN_LIKE = [
  /\beyJ[\w-]{8,}[\w.+/=-]*/g,
  /\bMDA[\w+/=-]{24,}/g,
  /\bBearer(?:\s|%20|\+)+[^\s"'<>&;,]+/gi,
  /\b(?:authz|access_token|refresh_token|client_secret)["']?\s*[=:]\s*["']?[^\s"'<>&;,]+/gi,
  /\b(?:token|authorization)=[^\s"'<>&;,]+/gi,
]

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
  if (/<html|<!doctype|<\?xml/i.test(words)) words = words.replace(/<[^>]{0,2000}>/g, ' ')
  words = words.replace(/[\p{C}\p{Z}\s\uFFFD]+/gu, ' ').trim()
  return words.length <= LIMIT ? words : `${words.slice(0, LIMIT - 3)}...`
}
