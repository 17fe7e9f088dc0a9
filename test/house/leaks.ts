import { readFile } from 'node:fs/promises'
import type { Secret } from '../../shared/domain/secret.ts'

/** So much of a secret that nothing else reads like it. A token that was cut off after it is caught too. */
const FRAGMENT = 20

/**
 * Looks for secrets where none may be: "no token, refresh token or client secret appears in the logs, in clear in the
 * database, or in any API answer" (facts/tokens.md section 4). What lies there under its own seal is no leak.
 */
export class Leaks {
  /** Fragment -> whose it is. */
  readonly #secrets = new Map<string, string>()
  /** Place -> all that was seen there. */
  readonly #seen = new Map<string, string[]>()

  /** `what` names the secret in the report. */
  guard(what: string, secret: Secret): void {
    const text = secret.reveal()
    // What makes a JWT a secret is its signature; the claims of many begin alike.
    const signature = text.slice(text.lastIndexOf('.') + 1)
    this.#secrets.set(signature.length < FRAGMENT ? text.slice(-FRAGMENT) : signature.slice(0, FRAGMENT), what)
  }

  /** A client's secret, also as it stands in an `Authorization: Basic` header (RFC 7617). */
  guardClient(id: string, secret: Secret): void {
    this.guard(`the secret of ${id}`, secret)
    const basic = Buffer.from(`${id}:${secret.reveal()}`).toString('base64')
    this.#secrets.set(basic.slice(-FRAGMENT - 4, -4), `the Basic credentials of ${id}`)
  }

  saw(place: string, text: string): void {
    const texts = this.#seen.get(place) ?? []
    this.#seen.set(place, texts)
    texts.push(text)
  }

  /** A file's bytes as they are now; a missing file holds nothing. */
  async sawFile(path: string): Promise<void> {
    const bytes = await readFile(path).catch(() => undefined)
    if (bytes !== undefined) this.saw(path, bytes.toString('latin1'))
  }

  seenAt(place: string): readonly string[] {
    return this.#seen.get(place) ?? []
  }

  get guarded(): number {
    return this.#secrets.size
  }

  /** Every secret that was found, where, and what stands before it: never the secret itself. */
  found(): string[] {
    const leaks: string[] = []
    for (const [place, texts] of this.#seen) {
      const all = texts.join('\n')
      for (const [fragment, what] of this.#secrets) {
        const at = all.indexOf(fragment)
        if (at >= 0) leaks.push(`${what} in ${place}, after ${JSON.stringify(all.slice(Math.max(0, at - 200), at))}`)
      }
    }
    return leaks
  }
}
