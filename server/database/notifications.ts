import type pg from 'pg'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Logger } from '../../shared/runtime/logger.ts'
import type { Service } from '../../shared/runtime/services.ts'

const CHANNEL = 'waybill'
/** Before a lost connection is made again. Milliseconds. */
const AGAIN_MS = 5_000

export interface NotificationsOptions {
  readonly connect: () => pg.Client
  /** Another server has said so. */
  readonly heard: (word: string) => void
  readonly clock: Clock
  readonly log: Logger
}

/**
 * Words between servers on one PostgreSQL (LISTEN and NOTIFY): they shorten waits, and nothing depends on them, so what is
 * said while the connection is away is lost. A word that is on its way already is not said again.
 */
export class Notifications implements Service {
  readonly name = 'hear other servers'
  readonly #options: NotificationsOptions
  readonly #stopping = new AbortController()
  readonly #unsaid = new Set<string>()
  #client: pg.Client | undefined
  #saying = false
  #running: Promise<void> = Promise.resolve()

  constructor(options: NotificationsOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    this.#running = this.#run()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  say(word: string): void {
    this.#unsaid.add(word)
    if (!this.#saying) void this.#sayAll()
  }

  async #sayAll(): Promise<void> {
    this.#saying = true
    try {
      for (const word of this.#unsaid) {
        this.#unsaid.delete(word)
        await this.#client?.query('SELECT pg_notify($1, $2)', [CHANNEL, word])
      }
    } catch {
      // The connection is lost; whoever waits looks again by itself.
      this.#unsaid.clear()
    } finally {
      this.#saying = false
    }
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#options
    const { signal } = this.#stopping
    while (!signal.aborted) {
      await this.#listen().catch((error: unknown) => log.debug({ err: error }, 'no word from other servers'))
      await clock.sleep(AGAIN_MS, signal)
    }
  }

  /** Until the connection is lost, or the service stops. */
  async #listen(): Promise<void> {
    const { signal } = this.#stopping
    const client = this.#options.connect()
    const lost = new Promise<void>((resolve, reject) => {
      client.once('error', reject)
      client.once('end', () => resolve())
      signal.addEventListener('abort', () => resolve(), { once: true })
    })
    try {
      await client.connect()
      const { rows } = await client
        .query<{ own: number }>(`LISTEN ${CHANNEL}`)
        .then(() => client.query<{ own: number }>('SELECT pg_backend_pid() AS own'))
      client.on('notification', ({ processId, payload }) => {
        if (processId !== rows[0]?.own && payload !== undefined) this.#options.heard(payload)
      })
      this.#client = client
      await lost
    } finally {
      this.#client = undefined
      lost.catch(() => undefined)
      await client.end().catch(() => undefined)
    }
  }
}
