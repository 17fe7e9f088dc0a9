import type { ServerResponse } from 'node:http'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Behaviour } from './behaviour.ts'
import { copyFailureOf } from './copy-failure.ts'
import type { Exchange, Storage } from './exchange.ts'
import type { Progress } from './progress.ts'

/**
 * Runs a third-party copy and tells its client how it goes: a marker at once and then every period, and the outcome in
 * the last line. When the client goes, `work` is aborted, unless the storage plays one that goes on. Never throws: what
 * `work` throws becomes the last line.
 */
export async function reportCopy(
  storage: Storage,
  exchange: Exchange,
  remote: URL,
  work: (progress: Progress, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const { response } = exchange
  const { behaviour, clock } = storage
  const progress: Progress = { bytes: 0 }
  const disconnected = new AbortController()
  const ended = new AbortController()
  let nextMarker = clock.monotonic()
  const onClose = (): void => {
    ended.abort()
    if (behaviour.afterDisconnect === 'abort') disconnected.abort()
    else void clock.sleep(nextMarker - clock.monotonic(), storage.stopping).then(() => disconnected.abort())
  }
  if (response.destroyed) onClose()
  response.once('close', onClose)
  const mark = (): void => {
    nextMarker = clock.monotonic() + behaviour.markerSeconds * 1000
    response.write(marker(behaviour, progress.bytes, remote, clock.now()))
  }
  response.statusCode = behaviour.copyStatus
  response.setHeader('Content-Type', 'text/perf-marker-stream')
  if (!behaviour.lateHeaders) behaviour.firstMarker === 'at-once' ? mark() : response.flushHeaders()
  void markEvery(behaviour.markerSeconds * 1000, mark, clock, ended.signal)
  let outcome = 'success: Created'
  try {
    await work(progress, behaviour.afterDisconnect === 'go-on' ? storage.stopping : disconnected.signal)
  } catch (error) {
    const { asked } = exchange
    const why = behaviour.dialect.fail(copyFailureOf(error, asked, progress, behaviour), asked)
    outcome = `failure: ${why}`
    storage.log.info({ storage: storage.name, path: exchange.path.join('/'), why }, 'COPY failed')
  }
  ended.abort()
  if (!response.destroyed) conclude(response, behaviour, outcome)
}

async function markEvery(periodMs: number, mark: () => void, clock: Clock, ended: AbortSignal): Promise<void> {
  while (!ended.aborted) {
    await clock.sleep(periodMs, ended)
    if (!ended.aborted) mark()
  }
}

function conclude(response: ServerResponse, behaviour: Behaviour, outcome: string): void {
  if (behaviour.withholdOutcome) response.end(behaviour.lastWords)
  else response.end(behaviour.finalNewline ? `${outcome}\n` : outcome)
}

/** One stripe. The dialects: facts/http-tpc.md section 2. */
function marker(behaviour: Behaviour, bytes: number, remote: URL, nowMs: number): string {
  const { markers, remoteConnections } = behaviour
  const timestamp = Math.floor(nowMs / 1000)
  const named = remoteConnections === 'always' || (remoteConnections === 'once-connected' && bytes > 0)
  const connection = named ? [`RemoteConnections: tcp:${remote.hostname}:${remote.port || '443'}`] : []
  const fields = ['Stripe Index: 0', `Stripe Bytes Transferred: ${bytes}`, 'Total Stripe Count: 1', ...connection]
  if (markers === 'plain') return ['Perf Marker', `Timestamp: ${timestamp}`, ...fields, 'End', ''].join('\n')
  const detailed = [`Timestamp: ${timestamp}`, 'State: 3', 'State description: Mover running', ...fields]
  return ['Perf Marker', ...detailed.map(field => `    ${field}`), 'End', ''].join('\n')
}
