const MAX_LENGTH = 300

/** Anything shaped like a JWT, whole or cut short. */
const JWT_LIKE = /eyJ[\w-]{10,}(?:\.[\w-]*){0,4}/g
/** Runs too long and too regular for words, scopes or URLs' segments: opaque tokens, codes, keys. */
const OPAQUE_LIKE = /[\w~+-]{40,}={0,2}/g

/** An outsider's words made fit for an error or a log: bounded, printable ASCII, on one line. */
export function printable(text: string): string {
  const words = text
    .slice(0, 20 * MAX_LENGTH)
    .replace(/[^\x20-\x7e]+/g, ' ')
    .replace(/ {2,}/g, ' ')
    .trim()
  return words.length > MAX_LENGTH ? `${words.slice(0, MAX_LENGTH)}...` : words
}

/**
 * `printable`, and without tokens. IAM repeats the token it refuses (`Invalid refresh token: eyJ...`), so the secrets that
 * were sent are blanked by value, and others by their shape.
 */
export function withoutTokens(text: string, secrets: readonly string[]): string {
  let words = text
  for (const secret of secrets) if (secret !== '') words = words.replaceAll(secret, '[secret]')
  return printable(words.replace(JWT_LIKE, '[token]').replace(OPAQUE_LIKE, '[token]'))
}
