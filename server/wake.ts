/**
 * Cuts waits short: a rule was added, a grant went live, transfers were queued. Nothing depends on it: whoever waits looks
 * again after its own interval. Other servers are told where the database can do that.
 */
export class Wake {
  /** Each with its kind. */
  readonly #waiting = new Map<Topic, Map<() => void, string>>()
  readonly #tellOthers: (topic: Topic) => void
  #closed = false

  /** `tellOthers`: says a topic to the other servers. */
  constructor(tellOthers: (topic: Topic) => void = () => undefined) {
    this.#tellOthers = tellOthers
  }

  notify(topic: Topic): void {
    this.#tellOthers(topic)
    this.heard(topic)
  }

  /** As if notified, by another server. */
  heard(topic: Topic): void {
    const waiting = this.#waiting.get(topic)
    if (waiting === undefined) return
    this.#waiting.delete(topic)
    for (const wake of waiting.keys()) wake()
  }

  /**
   * Wakes who has waited longest, of each kind: for what only one can take, such as a slot that came free. Another kind may
   * have no use for it.
   */
  notifyOne(topic: Topic): void {
    const waiting = this.#waiting.get(topic)
    const woken = new Set<string>()
    for (const [wake, kind] of waiting ?? []) {
      if (woken.has(kind)) continue
      woken.add(kind)
      waiting?.delete(wake)
      wake()
    }
  }

  /** The process stops: nobody waits any more. */
  close(): void {
    this.#closed = true
    for (const topic of [...this.#waiting.keys()]) this.heard(topic)
  }

  /** True after `close`. */
  get closed(): boolean {
    return this.#closed
  }

  /** A signal that aborts at the next `notify(topic)`, or with `also`. Call `release` when done waiting. */
  listen(topic: Topic, also?: AbortSignal, kind = ''): { signal: AbortSignal; release(): void } {
    const controller = new AbortController()
    const wake = (): void => controller.abort()
    const waiting = this.#waiting.get(topic) ?? new Map()
    this.#waiting.set(topic, waiting.set(wake, kind))
    also?.addEventListener('abort', wake, { once: true })
    if (this.#closed || also?.aborted === true) wake()
    return {
      signal: controller.signal,
      release: () => {
        this.#waiting.get(topic)?.delete(wake)
        also?.removeEventListener('abort', wake)
      },
    }
  }
}

export const TOPICS = ['rules', 'grants', 'queue', 'repairs'] as const
export type Topic = (typeof TOPICS)[number]
