import type { Logger } from './logger.ts'

/** Anything that runs in the background: the same start and stop for all. `stop` resolves when nothing of it runs any more. */
export interface Service {
  readonly name: string
  start(): Promise<void>
  stop(): Promise<void>
}

/**
 * Starts services in order and stops them in reverse. If one fails to start, those already started are stopped.
 * Errors while stopping are collected: every service gets its chance to stop.
 */
export async function startAll(services: readonly Service[], log: Logger): Promise<() => Promise<void>> {
  const started: Service[] = []
  const stopAll = async (): Promise<void> => {
    const errors: unknown[] = []
    for (const service of started.splice(0).reverse()) {
      try {
        await service.stop()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'some services did not stop cleanly')
  }
  try {
    for (const service of services) {
      await service.start()
      started.push(service)
      log.debug({ service: service.name }, 'started')
    }
  } catch (error) {
    await stopAll().catch(stopError => log.error({ err: stopError }, 'while stopping after a failed start'))
    throw error
  }
  return stopAll
}
