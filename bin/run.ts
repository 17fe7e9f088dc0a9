import process from 'node:process'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'

/** What was started, and stops on request. */
export interface Running {
  stop(): Promise<void>
}

interface RunOptions {
  readonly shutdownSeconds: number
  readonly clock: Clock
  readonly log: Logger
}

/**
 * Runs until somebody asks for the end: SIGINT, SIGTERM, or the death of the process that started this one with a channel to
 * it. The first asks; the second, or the deadline, ends it hard. A signal that comes while it starts counts too.
 */
export async function runUntilSignal(start: () => Promise<Running>, options: RunOptions): Promise<void> {
  const asked = stopRequest(options)
  const running = await start()
  await asked
  await running.stop()
  // Whatever still holds the event loop does not matter any more.
  process.exit()
}

/** Resolves when the end is asked for; sees to the hard end by itself. */
export function stopRequest({ shutdownSeconds, clock, log }: RunOptions): Promise<void> {
  return new Promise(resolve => {
    let asked = false
    const ask = (why: string): void => {
      if (asked) endHard(log, `${why}, for the second time`)
      asked = true
      log.info({ why }, 'stopping')
      void clock.sleep(shutdownSeconds * 1000).then(() => endHard(log, `not stopped within ${shutdownSeconds} s`))
      resolve()
    }
    process.on('SIGINT', () => ask('SIGINT'))
    process.on('SIGTERM', () => ask('SIGTERM'))
    if (process.connected) process.once('disconnect', () => ask('the parent process is gone'))
  })
}

function endHard(log: Logger, why: string): never {
  log.warn({ why }, 'ended hard')
  process.exit(1)
}
