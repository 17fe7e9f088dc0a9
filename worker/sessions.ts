import { Work, type WorkOptions } from './loop.ts'
import { backoff, inWords } from './server.ts'
import { openSession } from './session.ts'

/**
 * Works under one session after the other until `stopping` aborts, and resolves when nothing runs any more. A refusal of the
 * server's is logged and tried again: configurations get mended.
 */
export async function workUntil(stopping: AbortSignal, worker: string, options: WorkOptions): Promise<void> {
  const { clock, random, log, metrics } = options
  const onRenewal = (outcome: string) => metrics.leaseRenewed(outcome)
  for (let failures = 0; !stopping.aborted; ) {
    try {
      const session = await openSession({ ...options, worker, onRenewal }, stopping)
      log.info({ session: session.id }, 'session opened')
      failures = 0
      await new Work(options, session, stopping).run()
      log.info({ session: session.id }, 'session ended')
    } catch (error) {
      if (stopping.aborted) break
      log.error(inWords(error), 'the server or the issuer refuses this worker')
      failures += 1
    }
    if (failures > 0) await clock.sleep(backoff(failures, random.fraction()), stopping)
  }
}
