/** A limited number of drives, first come, first served. */
export class TapeDrives {
  readonly #drives: () => number
  readonly #waiting: (() => void)[] = []
  #busy = 0

  constructor(drives: () => number) {
    this.#drives = drives
  }

  /** Does the work at a drive, when it is its turn. Whoever gives up while it waits leaves the queue. */
  async use(signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    if (!(await this.#turn(signal))) return
    try {
      await work()
    } finally {
      this.#busy -= 1
      if (this.#busy < this.#drives()) this.#waiting.shift()?.()
    }
  }

  #turn(signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return Promise.resolve(false)
    if (this.#busy < this.#drives()) {
      this.#busy += 1
      return Promise.resolve(true)
    }
    return new Promise(resolve => {
      const go = () => {
        signal.removeEventListener('abort', leave)
        this.#busy += 1
        resolve(true)
      }
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(go), 1)
        resolve(false)
      }
      this.#waiting.push(go)
      signal.addEventListener('abort', leave, { once: true })
    })
  }
}
