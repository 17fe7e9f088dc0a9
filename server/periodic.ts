import { setMaxListeners } from 'node:events'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import type { Service } from '../shared/runtime/services.ts'
import type { Topic, Wake } from './wake.ts'

interface PeriodicOptions {
  readonly name: string
  /** Milliseconds between rounds that found nothing to do. */
  readonly interval: number
  /** One bounded piece of work; true when there may be more. Claims its rows, so that any number of servers may run it. */
  readonly round: (signal: AbortSignal) => Promise<boolean>
  /** Cuts the wait short. */
  readonly topic?: Topic
  readonly clock: Clock
  readonly log: Logger
  readonly wake: Wake
}

/** The one shape of background work: rounds while there is work, then a wait. An error is logged and waits like idleness. */
export function periodic(options: PeriodicOptions): Service {
  const controller = new AbortController()
  // A round may do several things at once that all listen to it.
  setMaxListeners(0, controller.signal)
  let running: Promise<void> = Promise.resolve()

  async function run(): Promise<void> {
    const { signal } = controller
    while (!signal.aborted) {
      // Listening begins before the round: what happens during it is not missed.
      const listener = options.wake.listen(options.topic ?? 'rules', signal)
      try {
        const more = await options.round(signal)
        if (!more) {
          const wakes = options.topic !== undefined && !options.wake.closed
          await options.clock.sleep(options.interval, wakes ? listener.signal : signal)
        }
      } catch (error) {
        options.log.error({ err: error, service: options.name }, 'a round of background work failed; it is tried again')
        await options.clock.sleep(options.interval, signal)
      } finally {
        listener.release()
      }
    }
  }

  return {
    name: options.name,
    async start() {
      running = run()
    },
    async stop() {
      controller.abort()
      await running
    },
  }
}
