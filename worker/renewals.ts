import type { Logger } from '../shared/runtime/logger.ts'
import { inWords } from './server.ts'
import type { GrantTokens } from './tokens.ts'

/** Grants acquired at once, ahead of the work; the server paces the requests to each issuer. */
const PARALLEL = 8

/** Grants that the server wants exchanged or refreshed, so that they are live before a claim needs them. */
export class Renewals {
  readonly #tokens: GrantTokens
  readonly #log: Logger
  readonly #wanted = new Set<number>()
  #active = 0

  constructor(tokens: GrantTokens, log: Logger) {
    this.#tokens = tokens
    this.#log = log
  }

  want(grants: readonly number[]): void {
    for (const grant of grants) this.#wanted.add(grant)
    while (this.#active < PARALLEL && this.#wanted.size > 0) void this.#work()
  }

  async #work(): Promise<void> {
    this.#active += 1
    for (const grant of this.#wanted) {
      this.#wanted.delete(grant)
      await this.#acquire(grant)
    }
    this.#active -= 1
  }

  async #acquire(grant: number): Promise<void> {
    try {
      await this.#tokens.renewAhead(grant)
    } catch (error) {
      // The server has it from the report of the renewal, or asks again.
      this.#log.warn({ grant, ...inWords(error) }, 'a grant could not be renewed ahead of its work')
    }
  }
}
