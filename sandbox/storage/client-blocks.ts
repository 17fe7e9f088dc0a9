import type { IncomingMessage } from 'node:http'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Behaviour } from './behaviour.ts'
import { Refusal } from './refusal.ts'

/**
 * dCache does not hear a client for a while that it has refused too often with 401, whatever it asks: 429 and `Retry-After`
 * (facts/http-tpc.md section 5; dCache's `RateLimitedHandlerList`). A client is its address.
 */
export class ClientBlocks {
  readonly #behaviour: Behaviour
  readonly #clock: Clock
  readonly #refusals = new Map<string, number>()
  /** On the monotonic clock. */
  readonly #until = new Map<string, number>()

  constructor(behaviour: Behaviour, clock: Clock) {
    this.#behaviour = behaviour
    this.#clock = clock
  }

  /** Throws 429 while the client is blocked. */
  demandOpen(request: IncomingMessage): void {
    const left = (this.#until.get(addressOf(request)) ?? 0) - this.#clock.monotonic()
    if (left <= 0 || this.#behaviour.blocks === undefined) return
    const retryAfter = String(Math.ceil(left / 1000))
    throw new Refusal(429, 'Server is busy. Please try again later.', { 'Retry-After': retryAfter })
  }

  /** The client was answered 401. */
  refused(request: IncomingMessage): void {
    const { blocks } = this.#behaviour
    if (blocks === undefined) return
    const client = addressOf(request)
    const refusals = (this.#refusals.get(client) ?? 0) + 1
    this.#refusals.set(client, refusals < blocks.refusals ? refusals : 0)
    if (refusals >= blocks.refusals) this.#until.set(client, this.#clock.monotonic() + blocks.seconds * 1000)
  }
}

function addressOf({ socket }: IncomingMessage): string {
  return socket.remoteAddress ?? ''
}
