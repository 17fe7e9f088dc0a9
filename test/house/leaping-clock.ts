import { type Clock, systemClock } from '../../shared/runtime/clock.ts'

/** The system's clock, but that a test can put its time of day forward: for what only happens minutes later. */
export class LeapingClock implements Clock {
  #ahead = 0

  leap(ms: number): void {
    this.#ahead += ms
  }

  now(): number {
    return systemClock.now() + this.#ahead
  }

  monotonic(): number {
    return systemClock.monotonic()
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return systemClock.sleep(ms, signal)
  }
}
