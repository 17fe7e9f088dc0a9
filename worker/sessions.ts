import { ApiError } from '../shared/contract/client.ts'
import { CONTRACT_CODES } from '../shared/contract/worker-contract.ts'
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
      failures += 1
      const again = pauseAfter(error, failures, random.fraction())
      const seconds = Math.round(again / 1000)
      if (isOfAnotherContract(error)) {
        log.error(
          { ...inWords(error), seconds },
          'worker and server do not fit together: nothing is done until one is updated',
        )
      } else log.error(inWords(error), 'the server or the issuer refuses this worker')
      await clock.sleep(again, stopping)
    }
  }
}

function isOfAnotherContract(error: unknown): boolean {
  return error instanceof ApiError && CONTRACT_CODES.some(code => code === error.code)
}

/** A contract changes with an update, and updates take minutes. */
const CONTRACT_MS = 60_000

/** Milliseconds until a session is asked for again, after `failures` refusals in a row. `fraction`: random, in [0, 1). */
export function pauseAfter(error: unknown, failures: number, fraction: number): number {
  return isOfAnotherContract(error) ? Math.round(CONTRACT_MS * (0.5 + fraction / 2)) : backoff(failures, fraction)
}
