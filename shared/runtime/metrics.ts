import { once } from 'node:events'
import { createServer } from 'node:http'
import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client'

/** A registry with the figures of the process and of its event loop, all named `waybill_*` (`waybill_nodejs_eventloop_lag_*`). */
export function createRegistry(): Registry {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, prefix: 'waybill_' })
  return registry
}

/** Counts one request to an issuer: the shape of the issuer client's `onRequest`. */
export type CountTokenRequest = (grantType: string, outcome: string, seconds: number) => void

/** Requests to issuers, of the server and of the workers alike. The result is the counter of one issuer. */
export function tokenRequestMetrics(registry: Registry): (issuer: string) => CountTokenRequest {
  const requests = new Counter({
    name: 'waybill_token_requests_total',
    help: 'Requests to issuers, by grant type and outcome (ok, or the code of the error)',
    labelNames: ['issuer', 'grant_type', 'outcome'],
    registers: [registry],
  })
  const durations = new Histogram({
    name: 'waybill_token_request_duration_seconds',
    help: 'How long issuers took to answer',
    labelNames: ['issuer', 'grant_type'],
    buckets: [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: [registry],
  })
  return issuer => (grantType, outcome, seconds) => {
    requests.inc({ issuer, grant_type: grantType, outcome })
    durations.observe({ issuer, grant_type: grantType }, seconds)
  }
}

export interface MetricsListenerOptions {
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  readonly registry: Registry
}

export interface MetricsListener {
  readonly port: number
  stop(): Promise<void>
}

/** Serves `GET /metrics` for Prometheus, and nothing else: figures have a listener of their own, without tokens. */
export async function startMetricsListener({ host, port, registry }: MetricsListenerOptions): Promise<MetricsListener> {
  const server = createServer((request, response) => {
    if (request.method !== 'GET' || request.url?.split('?')[0] !== '/metrics') {
      response.writeHead(404, { 'Content-Type': 'text/plain' }).end('the figures are at GET /metrics\n')
      return
    }
    registry.metrics().then(
      text => response.writeHead(200, { 'Content-Type': registry.contentType }).end(text),
      () => response.writeHead(500).end(),
    )
  })
  server.listen(port, host)
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    async stop() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
