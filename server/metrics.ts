import { Counter, Histogram, type Registry } from 'prom-client'
import type { Clock } from '../shared/runtime/clock.ts'
import { createRegistry, tokenRequestMetrics } from '../shared/runtime/metrics.ts'
import type { Database } from './database/database.ts'
import { fleetMetrics } from './fleet-metrics.ts'

/** One outcome that was applied. Repeated and refused reports are not counted. */
export interface CountedOutcome {
  readonly source: string
  readonly destination: string
  /** What the worker reported: done, failed, unknown, handed-back, absent or growing. */
  readonly outcome: string
  readonly bytes: number
  /** From the start of the attempt to its end. */
  readonly seconds: number
  /** The error's code, and the storage at fault where it is known. */
  readonly code?: string
  readonly storage?: string
}

export interface ServerMetrics {
  readonly registry: Registry
  countOutcome(outcome: CountedOutcome): void
  countTokenRequest(request: { issuer: string; grantType: string; outcome: string; seconds: number }): void
  /** A worker asked for a grant's token. hit: a live one was there; miss: it has to be minted, exchanged or refreshed. */
  countTokenCache(result: 'hit' | 'miss'): void
  /** `route`: the name of the row in the route table. */
  observeRequest(route: string, status: number, seconds: number): void
}

/** Codes come from workers: a broken one must not fill the memory of whoever scrapes. */
const MOST_CODES = 200

/** The figures of one server, and those of the whole database (`waybill_fleet_*`). Made once for each process. */
export function createServerMetrics(db: Database, clock: Clock): ServerMetrics {
  const registry = createRegistry()
  const registers = [registry]
  fleetMetrics(registry, db, clock)
  const transfers = new Counter({
    name: 'waybill_transfers_total',
    help: 'Applied outcomes of attempts, by link: done, failed, unknown, handed-back, absent, growing',
    labelNames: ['source', 'destination', 'outcome'],
    registers,
  })
  const errors = new Counter({
    name: 'waybill_transfer_errors_total',
    help: 'Failed attempts, by the storage at fault (else the destination) and code',
    labelNames: ['rse', 'code'],
    registers,
  })
  const bytes = new Counter({
    name: 'waybill_transferred_bytes_total',
    help: 'Bytes of verified copies, by link',
    labelNames: ['source', 'destination'],
    registers,
  })
  const durations = new Histogram({
    name: 'waybill_transfer_duration_seconds',
    help: 'How long verified copies took, by destination',
    labelNames: ['rse'],
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400],
    registers,
  })
  const lookups = new Counter({
    name: 'waybill_token_lookups_total',
    help: 'Tokens that workers asked for: hit, a live one was there; miss, it had to be renewed',
    labelNames: ['result'],
    registers,
  })
  const requests = new Counter({
    name: 'waybill_requests_total',
    help: 'Requests to the API, by route and status',
    labelNames: ['route', 'status'],
    registers,
  })
  const requestDurations = new Histogram({
    name: 'waybill_request_duration_seconds',
    help: 'How long requests to the API took; claims wait for work up to 30 s',
    labelNames: ['route'],
    buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers,
  })
  const tokenRequests = tokenRequestMetrics(registry)
  const codes = new Set<string>()

  return {
    registry,
    countOutcome({ source, destination, outcome, bytes: moved, seconds, code, storage }) {
      transfers.inc({ source, destination, outcome })
      if (code !== undefined) {
        if (codes.size < MOST_CODES) codes.add(code)
        errors.inc({ rse: storage ?? destination, code: codes.has(code) ? code : 'OTHER' })
      }
      if (outcome !== 'done') return
      bytes.inc({ source, destination }, moved)
      durations.observe({ rse: destination }, seconds)
    },
    countTokenRequest({ issuer, grantType, outcome, seconds }) {
      tokenRequests(issuer)(grantType, outcome, seconds)
    },
    countTokenCache: result => lookups.inc({ result }),
    observeRequest(route, status, seconds) {
      requests.inc({ route, status })
      requestDurations.observe({ route }, seconds)
    },
  }
}
