/**
 * Cuts waits short inside one process: a rule was added, a grant went live, transfers were queued. Nothing depends on it:
 * whoever waits looks again after its own interval, so other servers only learn a little later.
 */
export class Wake {
  readonly #waiting = new Map<Topic, Set<() => void>>()
  #closed = false

  notify(topic: Topic): void {
    const waiting = this.#waiting.get(topic)
    if (waiting === undefined) return
    this.#waiting.delete(topic)
    for (const wake of waiting) wake()
  }

  /** Wakes who has waited longest: for what only one can take, such as a slot that came free. */
  notifyOne(topic: Topic): void {
    const waiting = this.#waiting.get(topic)
    for (const wake of waiting ?? []) {
      waiting?.delete(wake)
      wake()
      return
    }
  }

  /** The process stops: nobody waits any more. */
  close(): void {
    this.#closed = true
    for (const topic of [...this.#waiting.keys()]) this.notify(topic)
  }

  /** True after `close`. */
  get closed(): boolean {
    return this.#closed
  }

  /** A signal that aborts at the next `notify(topic)`, or with `also`. Call `release` when done waiting. */
  listen(topic: Topic, also?: AbortSignal): { signal: AbortSignal; release(): void } {
    const controller = new AbortController()
    const wake = (): void => controller.abort()
    const waiting = this.#waiting.get(topic) ?? new Set()
    this.#waiting.set(topic, waiting.add(wake))
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

export type Topic = 'rules' | 'grants' | 'queue'
