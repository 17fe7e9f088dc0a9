import { Agent } from 'node:http'
import { type RequestOptions, Agent as TlsAgent } from 'node:https'
import type { Duplex } from 'node:stream'
import type { SecureContext } from 'node:tls'
import type { Trust } from './trust.ts'

export interface PoolOptions {
  trust: Trust
  /** Connections per host; more requests wait, which counts against their connect deadline. Default 256. */
  maxSockets?: number
  /** A new connection for every request, for servers that do not bear kept ones (facts/http-tpc.md section 8). */
  fresh?: boolean
}

export interface Agents {
  readonly http: Agent
  readonly https: TlsAgent
}

/**
 * Between two requests on a connection, and when one breaks after an answer that came before its request went out, Node listens for
 * no error of the socket for a moment: an error then would end the process. Whoever uses the connection hears of it as ever.
 */
function heard(socket: Duplex | null | undefined): Duplex | null | undefined {
  return socket?.on('error', () => undefined)
}

class PlainAgent extends Agent {
  override createConnection(...given: Parameters<Agent['createConnection']>) {
    return heard(super.createConnection(...given))
  }
}

/** Connections of a pool are made alike: host and port tell them apart. Node's name lists every option, for each request anew. */
class PooledTlsAgent extends TlsAgent {
  override getName({ host, port }: RequestOptions = {}): string {
    return `${host}:${port}`
  }

  override createConnection(...given: Parameters<TlsAgent['createConnection']>) {
    return heard(super.createConnection(...given))
  }
}

/** XRootD and StoRM close idle connections at 30 s; a request on a connection just closed is a failure for nothing. */
const IDLE_MS = 20_000

/** The connections of one client. Changed trust makes a new TLS pool; the old one drains. */
export class ConnectionPool {
  readonly #options: PoolOptions
  readonly #http: PlainAgent
  #context: SecureContext
  #https: TlsAgent

  constructor(options: PoolOptions) {
    this.#options = options
    this.#http = new PlainAgent(this.#agentOptions())
    this.#context = options.trust.secureContext()
    this.#https = new PooledTlsAgent({ ...this.#agentOptions(), secureContext: this.#context })
  }

  agents(): Agents {
    const context = this.#options.trust.secureContext()
    if (context !== this.#context) {
      closeIdle(this.#https)
      this.#context = context
      this.#https = new PooledTlsAgent({ ...this.#agentOptions(), secureContext: context })
    }
    return { http: this.#http, https: this.#https }
  }

  close(): void {
    closeIdle(this.#http)
    closeIdle(this.#https)
  }

  #agentOptions(): { keepAlive: boolean; maxSockets: number; maxFreeSockets: number; timeout: number } {
    const maxSockets = this.#options.maxSockets ?? 256
    return { keepAlive: this.#options.fresh !== true, maxSockets, maxFreeSockets: maxSockets, timeout: IDLE_MS }
  }
}

/** `Agent.destroy` would cut exchanges under way; these end by themselves and their sockets are not kept any more. */
function closeIdle(agent: Agent): void {
  agent.maxFreeSockets = 0
  for (const sockets of Object.values(agent.freeSockets)) {
    for (const socket of sockets ?? []) socket.destroy()
  }
}
