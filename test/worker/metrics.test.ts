import { expect } from 'chai'
import { Registry } from 'prom-client'
import { createRegistry, startMetricsListener, tokenRequestMetrics } from '../../shared/runtime/metrics.ts'
import { workerMetrics } from '../../worker/metrics.ts'

describe('the figures', () => {
  it('of a worker: links carry the outcome only, codes and durations are by storage', async () => {
    const registry = new Registry()
    const metrics = workerMetrics(registry)
    const link = { source: 'A', destination: 'B', seconds: 0.2 }
    metrics.attemptEnded({ ...link, outcome: 'done', bytes: 1000 })
    metrics.attemptEnded({ ...link, outcome: 'failed', bytes: 10, error: { rse: 'A', code: 'SOURCE_MISSING' } })
    metrics.active(1)
    metrics.tokenLookup(true)
    metrics.leaseRenewed('ok')
    metrics.outcomeReported('applied')
    metrics.claimed(3)
    metrics.drained(true)
    const text = await registry.metrics()
    for (const line of [
      'waybill_worker_transfers_total{source="A",destination="B",outcome="done"} 1',
      'waybill_worker_transfers_total{source="A",destination="B",outcome="failed"} 1',
      'waybill_worker_errors_total{rse="A",code="SOURCE_MISSING"} 1',
      'waybill_worker_bytes_total{source="A",destination="B"} 1000',
      'waybill_worker_transfer_duration_seconds_count{rse="B"} 1',
      'waybill_worker_active_transfers 1',
      'waybill_worker_token_lookups_total{result="hit"} 1',
      'waybill_worker_lease_renewals_total{outcome="ok"} 1',
      'waybill_worker_outcome_reports_total{answer="applied"} 1',
      'waybill_worker_claimed_transfers_total 3',
      'waybill_worker_drained 1',
    ]) {
      expect(text).to.include(`${line}\n`)
    }
  })

  it('are served at /metrics alone: of the process, the event loop and the issuers', async () => {
    const registry = createRegistry()
    tokenRequestMetrics(registry)('https://issuer.example')('client_credentials', 'ok', 0.02)
    const listener = await startMetricsListener({ host: '127.0.0.1', port: 0, registry })
    try {
      const base = `http://127.0.0.1:${listener.port}`
      const answer = await fetch(`${base}/metrics`)
      expect(answer.headers.get('content-type')).to.match(/^text\/plain/)
      const text = await answer.text()
      for (const line of [
        'waybill_process_resident_memory_bytes ',
        'waybill_nodejs_eventloop_lag_seconds ',
        'waybill_token_requests_total{issuer="https://issuer.example",grant_type="client_credentials",outcome="ok"} 1',
        'waybill_token_request_duration_seconds_count{issuer="https://issuer.example",grant_type="client_credentials"} 1',
      ]) {
        expect(text).to.include(line)
      }
      expect((await fetch(`${base}/`)).status).to.equal(404)
      expect((await fetch(`${base}/metrics`, { method: 'POST' })).status).to.equal(404)
    } finally {
      await listener.stop()
    }
  })
})
