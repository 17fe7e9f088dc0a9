import { Counter, type CounterConfiguration, Gauge, Histogram, type Registry } from 'prom-client'
import { type CountTokenRequest, tokenRequestMetrics } from '../shared/runtime/metrics.ts'

/** The figures of a worker. Links carry (source, destination, outcome) only; codes and durations are by storage. */
export interface WorkerMetrics {
  readonly tokenRequests: (issuer: string) => CountTokenRequest
  attemptEnded(ended: {
    source: string
    destination: string
    outcome: string
    bytes: number
    seconds: number
    /** The storage at fault; absent for what went well. */
    error?: { rse: string; code: string }
  }): void
  active(change: 1 | -1): void
  tokenLookup(hit: boolean): void
  outcomeReported(answer: string): void
  leaseRenewed(outcome: string): void
  claimed(transfers: number): void
  drained(is: boolean): void
}

export function workerMetrics(registry: Registry): WorkerMetrics {
  const registers = [registry]
  const transfers = tally({
    name: 'waybill_worker_transfers_total',
    help: 'Attempts by link and how they ended: done, failed, unknown, handed-back, absent, growing',
    labelNames: ['source', 'destination', 'outcome'],
    registers,
  })
  const errors = tally({
    name: 'waybill_worker_errors_total',
    help: 'Failed attempts by the storage at fault (else the destination) and code',
    labelNames: ['rse', 'code'],
    registers,
  })
  const bytes = tally({
    name: 'waybill_worker_bytes_total',
    help: 'Bytes of verified copies',
    labelNames: ['source', 'destination'],
    registers,
  })
  const durations = new Histogram({
    name: 'waybill_worker_transfer_duration_seconds',
    help: 'From the start of an attempt to its verified end, by destination',
    labelNames: ['rse'],
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400],
    registers,
  })
  let running = 0
  new Gauge({
    name: 'waybill_worker_active_transfers',
    help: 'Attempts under way',
    registers,
    collect() {
      this.set(running)
    },
  })
  const lookups = tally({
    name: 'waybill_worker_token_lookups_total',
    help: 'Tokens wanted for a storage operation: hit in memory, or miss',
    labelNames: ['result'],
    registers,
  })
  const reports = tally({
    name: 'waybill_worker_outcome_reports_total',
    help: 'Outcomes that the server answered: applied, already-applied, refused',
    labelNames: ['answer'],
    registers,
  })
  const leases = new Counter({
    name: 'waybill_worker_lease_renewals_total',
    help: 'Heartbeats, by outcome: ok or failed',
    labelNames: ['outcome'],
    registers,
  })
  const claims = new Counter({
    name: 'waybill_worker_claimed_transfers_total',
    help: 'Transfers that claims gave',
    registers,
  })
  const drained = new Gauge({
    name: 'waybill_worker_drained',
    help: '1 while an admin has drained this worker: it gets no work',
    registers,
  })
  return {
    tokenRequests: tokenRequestMetrics(registry),
    attemptEnded({ source, destination, outcome, bytes: moved, seconds, error }) {
      transfers([source, destination, outcome])
      if (error !== undefined) errors([error.rse, error.code])
      if (outcome !== 'done') return
      bytes([source, destination], moved)
      durations.observe({ rse: destination }, seconds)
    },
    active(change) {
      running += change
    },
    tokenLookup: hit => lookups([hit ? 'hit' : 'miss']),
    outcomeReported: answer => reports([answer]),
    leaseRenewed: outcome => leases.inc({ outcome }),
    claimed: count => claims.inc(count),
    drained: is => drained.set(is ? 1 : 0),
  }
}

/**
 * A counter of what happens at every transfer, by the values of its labels in their order: added up here and handed over when the
 * figures are asked for, since prom-client checks and sorts the labels for each count.
 */
function tally(configuration: CounterConfiguration<string>): (values: readonly string[], by?: number) => void {
  const { labelNames = [] } = configuration
  const sums = new Map<string, { readonly values: readonly string[]; sum: number }>()
  new Counter({
    ...configuration,
    collect() {
      for (const { values, sum } of sums.values())
        this.inc(Object.fromEntries(labelNames.map((name, i) => [name, values[i] ?? ''])), sum)
      sums.clear()
    },
  })
  return (values, by = 1) => {
    const key = values.join('\n')
    const known = sums.get(key)
    if (known === undefined) sums.set(key, { values, sum: by })
    else known.sum += by
  }
}
