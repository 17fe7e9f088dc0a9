import { expect } from 'chai'
import { createRegistry, startMetricsListener, tokenRequestMetrics } from '../../shared/runtime/metrics.ts'

describe('the figures', () => {
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
