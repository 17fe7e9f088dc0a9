import { createHash } from 'node:crypto'
import { appendFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Random } from '../../shared/runtime/random.ts'
import { isMissing, writePrivateFile } from '../private-file.ts'

/** What a refresh token is good for. */
export interface RefreshGrant {
  readonly clientId: string
  readonly subject: string
  readonly audience: readonly string[]
  readonly scopes: readonly string[]
}

interface Entry extends RefreshGrant {
  /** SHA-256 of the token, base64url. The token itself is nowhere. */
  readonly hash: string
  /** Shared by a token and all that rotation made of it. */
  readonly family: string
  /** Epoch milliseconds. */
  readonly expiresAt: number
  readonly retiredAt?: number
}

/** One line of the file: what became of a token. */
type Line = { put: Entry } | { endFamily: string }

/**
 * Refresh tokens with rotation: a use retires the token, which then survives a grace (facts/tokens.md section 1,
 * "Lifetimes"); used again after it, its whole family ends (RFC 9700 section 4.14.2). Kept in memory and in a file of
 * appended lines, written before the token is given out, so that a kill loses nothing.
 */
export class RefreshTokens {
  readonly #file: string
  readonly #lifetimeMs: number
  readonly #graceMs: number
  readonly #clock: Clock
  readonly #random: Random
  readonly #entries = new Map<string, Entry>()

  private constructor(options: RefreshTokenOptions) {
    this.#file = options.file
    this.#lifetimeMs = options.lifetimeSeconds * 1000
    this.#graceMs = options.graceSeconds * 1000
    this.#clock = options.clock
    this.#random = options.random
  }

  /** Reads the file, if there is one, and writes it anew without what has ended. */
  static async load(options: RefreshTokenOptions): Promise<RefreshTokens> {
    const tokens = new RefreshTokens(options)
    for (const line of await readLines(options.file)) tokens.#apply(line)
    tokens.#dropExpired()
    const kept = [...tokens.#entries.values()].map(entry => `${JSON.stringify({ put: entry } satisfies Line)}\n`)
    await writePrivateFile(options.file, kept.join(''))
    return tokens
  }

  issue(grant: RefreshGrant): string {
    return this.#issueIn(this.#random.uuid(), grant)
  }

  /**
   * What the token is good for; `undefined` when it is unknown, has expired or was retired longer ago than the grace.
   */
  read(token: string): (RefreshGrant & { readonly expiresAt: number }) | undefined {
    const entry = this.#entries.get(hashOf(token))
    return entry !== undefined && this.#isGood(entry) ? entry : undefined
  }

  /** Retires the token and gives its successor, good for the same. `undefined` as for `read`. */
  rotate(token: string): { grant: RefreshGrant; successor: string } | undefined {
    const entry = this.#entries.get(hashOf(token))
    if (entry === undefined) return undefined
    if (!this.#isGood(entry)) {
      if (entry.retiredAt !== undefined) this.#record({ endFamily: entry.family })
      return undefined
    }
    if (entry.retiredAt === undefined) this.#record({ put: { ...entry, retiredAt: this.#clock.now() } })
    return { grant: entry, successor: this.#issueIn(entry.family, entry) }
  }

  /** The client it was issued to, whether it is still good or not. */
  ownerOf(token: string): string | undefined {
    return this.#entries.get(hashOf(token))?.clientId
  }

  /** Ends the token and all that came of it. */
  revoke(token: string): void {
    const entry = this.#entries.get(hashOf(token))
    if (entry !== undefined) this.#record({ endFamily: entry.family })
  }

  #issueIn(family: string, { clientId, subject, audience, scopes }: RefreshGrant): string {
    const token = this.#random.bytes(32).toString('base64url')
    const expiresAt = this.#clock.now() + this.#lifetimeMs
    this.#record({ put: { hash: hashOf(token), family, clientId, subject, audience, scopes, expiresAt } })
    return token
  }

  #isGood(entry: Entry): boolean {
    const now = this.#clock.now()
    return now < entry.expiresAt && (entry.retiredAt === undefined || now < entry.retiredAt + this.#graceMs)
  }

  #record(line: Line): void {
    appendFileSync(this.#file, `${JSON.stringify(line)}\n`, { mode: 0o600 })
    this.#apply(line)
  }

  #apply(line: Line): void {
    if ('put' in line) {
      this.#entries.set(line.put.hash, line.put)
      return
    }
    for (const [hash, entry] of this.#entries) if (entry.family === line.endFamily) this.#entries.delete(hash)
  }

  #dropExpired(): void {
    for (const [hash, entry] of this.#entries) if (entry.expiresAt <= this.#clock.now()) this.#entries.delete(hash)
  }
}

export interface RefreshTokenOptions {
  readonly file: string
  readonly lifetimeSeconds: number
  readonly graceSeconds: number
  readonly clock: Clock
  readonly random: Random
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('base64url')
}

/** A kill in the middle of an append leaves half a last line: its token was never given out. */
async function readLines(file: string): Promise<Line[]> {
  try {
    const complete = (await readFile(file, 'utf8')).split('\n').slice(0, -1)
    return complete.map(line => JSON.parse(line) as Line)
  } catch (error) {
    if (isMissing(error)) return []
    throw error
  }
}
