import type { TransferScope } from '../domain/error-catalogue.ts'
import type { Secret } from '../domain/secret.ts'
import { type Attempted, transferFailure } from './classify.ts'
import { orStorageError } from './files.ts'
import { decideRedirect } from './redirects.ts'
import { addressOf, answeredFailure, type StorageDeps, send, timeoutsAt } from './send.ts'
import { parseDiscovery } from './tape-answers.ts'
import { readJson } from './tape-json.ts'
import { StorageError, type TapeEndpoint } from './types.ts'

const REMEMBER_MS = 600_000
const REMEMBER_LIMIT = 1_000
const DOCUMENT_LIMIT_BYTES = 256 * 1024

/** Finds the tape APIs of storages (RFC 8615). Many callers for one storage at once share a request. */
export class TapeEndpoints {
  readonly #deps: StorageDeps
  /** A storage's origin to its endpoint, oldest first. */
  readonly #known = new Map<string, { endpoint: TapeEndpoint; until: number }>()
  readonly #underWay = new Map<string, Promise<TapeEndpoint>>()

  constructor(deps: StorageDeps) {
    this.#deps = deps
  }

  async find(storage: string, token: Secret | undefined, scope: TransferScope): Promise<TapeEndpoint> {
    const { origin } = addressOf({ method: 'GET', url: storage })
    const known = this.#known.get(origin)
    if (known !== undefined && known.until > this.#deps.clock.monotonic()) return known.endpoint
    // A failure is told to all who wait for it: they must agree on whose it is.
    const key = `${scope} ${origin}`
    const waiting = this.#underWay.get(key)
    if (waiting !== undefined) return waiting
    const asking = this.#ask(origin, token, scope).finally(() => this.#underWay.delete(key))
    this.#underWay.set(key, asking)
    return asking
  }

  async #ask(origin: string, token: Secret | undefined, scope: TransferScope): Promise<TapeEndpoint> {
    const attempted = { verb: 'GET /.well-known/wlcg-tape-rest-api', scope } as const satisfies Attempted
    const url = `${origin}/.well-known/wlcg-tape-rest-api`
    const headers = { Accept: 'application/json' }
    const response = await orStorageError(attempted, () =>
      send(this.#deps, this.#deps.client, {
        method: 'GET',
        url,
        token,
        headers,
        timeouts: timeoutsAt(this.#deps, url),
      }),
    )
    if (response.status === 404 || response.status === 410) {
      const failure = await answeredFailure(attempted, response, [token])
      throw new StorageError({ ...failure, code: 'NOT_SUPPORTED' })
    }
    if (response.status !== 200) throw new StorageError(await answeredFailure(attempted, response, [token]))
    const found = parseDiscovery(await readJson(attempted, response, DOCUMENT_LIMIT_BYTES))
    if (found === undefined) throw refused('PROTOCOL_VIOLATION', scope, 'the tape API`s description has no endpoints')
    if (found === 'none') throw refused('NOT_SUPPORTED', scope, 'the storage`s tape API has no version 1')
    const endpoint = { ...found, uri: this.#checked(origin, found.uri, scope) }
    this.#remember(origin, endpoint)
    return endpoint
  }

  /** The storage names another host as it does in a redirect: tokens go only where a redirect may lead. */
  #checked(origin: string, uri: string, scope: TransferScope): string {
    const from = new URL(origin)
    const decision = decideRedirect(from, uri, true, this.#deps.redirectHosts(from.hostname))
    if (!decision.follow) throw refused('REDIRECT_REFUSED', scope, `the tape API's address: ${decision.why}`)
    return `${decision.url.origin}${decision.url.pathname.replace(/\/+$/, '')}`
  }

  #remember(origin: string, endpoint: TapeEndpoint): void {
    this.#known.delete(origin)
    this.#known.set(origin, { endpoint, until: this.#deps.clock.monotonic() + REMEMBER_MS })
    const oldest = this.#known.keys().next()
    if (this.#known.size > REMEMBER_LIMIT && !oldest.done) this.#known.delete(oldest.value)
  }
}

function refused(
  code: 'PROTOCOL_VIOLATION' | 'NOT_SUPPORTED' | 'REDIRECT_REFUSED',
  scope: TransferScope,
  words: string,
): StorageError {
  return new StorageError(transferFailure(code, scope, 'PREPARATION', words))
}
