import { pipeline, type Readable } from 'node:stream'
import type { TransferFailure } from '../domain/transfer-error.ts'
import { Deadlines } from '../http/deadlines.ts'
import { HttpFailure } from '../http/failure.ts'
import { transferFailure } from './classify.ts'
import { digestTimeout } from './digest.ts'
import { head, openFile, refuseExisting, sendFile } from './files.ts'
import { Meter } from './meter.ts'
import { failureOf, type StorageDeps } from './send.ts'
import { type CopyOutcome, StorageError, type StreamRequest, type Watchdogs } from './types.ts'
import { DEFAULT_WATCHDOGS, totalLimit } from './watchdogs.ts'

const SOURCE = { verb: 'GET', scope: 'SOURCE' } as const
const DESTINATION = { verb: 'PUT', scope: 'DESTINATION' } as const

/** GET into PUT through this process, in constant memory, summed on the way. Never throws for what a storage does. */
export async function stream(deps: StorageDeps, request: StreamRequest): Promise<CopyOutcome> {
  const watchdogs = { ...DEFAULT_WATCHDOGS, ...request.watchdogs }
  const ending = new AbortController()
  const signal = request.signal === undefined ? ending.signal : AbortSignal.any([request.signal, ending.signal])
  let expired: TransferFailure | undefined
  const deadlines = new Deadlines<'noProgress' | 'total'>(deps.timer, name => {
    const code = name === 'total' ? 'TIMEOUT_TOTAL' : 'TIMEOUT_NO_PROGRESS'
    const words =
      name === 'total' ? 'not done in time' : `no byte moved for ${Math.round(watchdogs.noProgress / 1000)} s`
    expired = transferFailure(code, 'TRANSFER', 'TRANSFER', words)
    ending.abort()
  })
  deadlines.set('total', totalLimit(watchdogs, request.size))
  deadlines.set('noProgress', watchdogs.noProgress)
  try {
    const opened = await open(deps, request, watchdogs, signal)
    const meter = new Meter(opened.size, bytes => {
      if (bytes < opened.size) deadlines.set('noProgress', watchdogs.noProgress)
      else deadlines.clear('noProgress')
      request.onProgress?.(bytes)
    })
    return withCause(await pass(deps, request, opened.body, meter, opened.size, watchdogs, signal), expired)
  } catch (error) {
    return withCause({ kind: 'failed', error: failureOf(SOURCE, error) }, expired)
  } finally {
    deadlines.close()
  }
}

/** Looks at the destination, then opens the source. The size is the source's own word and must be the one expected. */
async function open(
  deps: StorageDeps,
  request: StreamRequest,
  watchdogs: Watchdogs,
  signal: AbortSignal,
): Promise<{ body: Readable; size: number }> {
  const { source, sourceToken, destination, destinationToken } = request
  if (!request.overwrite) await refuseExisting(deps, destination, destinationToken, { signal, scope: 'DESTINATION' })
  // No idle limit of its own: a destination that stalls holds the source back, and the watchdog is for both.
  const timeouts = { connect: watchdogs.connect, headers: watchdogs.headers }
  const opened = await openFile(deps, source, sourceToken, { signal, scope: 'SOURCE', timeouts })
  const size = opened.size ?? request.size ?? (await sizeByHead(deps, request, signal))
  if (size === undefined || size !== (request.size ?? size)) {
    opened.body.destroy()
    const words = `the source has ${size ?? 'an unknown number of'} bytes, expected were ${request.size ?? 'some'}`
    throw new StorageError(transferFailure('SIZE_MISMATCH', 'SOURCE', 'PREPARATION', words))
  }
  return { body: opened.body, size }
}

async function sizeByHead(deps: StorageDeps, request: StreamRequest, signal: AbortSignal): Promise<number | undefined> {
  const found = await head(deps, request.source, request.sourceToken, { signal, scope: 'SOURCE' })
  return found.exists ? found.size : undefined
}

async function pass(
  deps: StorageDeps,
  request: StreamRequest,
  body: Readable,
  meter: Meter,
  size: number,
  watchdogs: Watchdogs,
  signal: AbortSignal,
): Promise<CopyOutcome> {
  // A source that breaks off breaks the meter, and that the upload; so the source's error is the cause.
  let sourceError: unknown
  body.once('error', error => {
    sourceError ??= error
  })
  pipeline(body, meter, () => undefined)
  const { destination: url, destinationToken: token } = request
  const timeouts = { connect: watchdogs.connect, headers: Math.max(watchdogs.headers, digestTimeout(size)) }
  request.onTaken?.()
  try {
    await sendFile(deps, meter, { url, token, size, signal, scope: 'DESTINATION', timeouts })
    return { kind: 'done', bytes: meter.bytes, checksums: meter.checksums() }
  } catch (error) {
    const allSent = meter.readableEnded
    body.destroy()
    meter.destroy()
    if (meter.errored instanceof StorageError) return { kind: 'failed', error: meter.errored.failure }
    if (sourceError instanceof HttpFailure && !signal.aborted) return { kind: 'failed', error: cutOff(sourceError) }
    const lost = error instanceof HttpFailure && allSent
    return { kind: lost ? 'unknown' : 'failed', error: inItsPhase(failureOf(DESTINATION, error, 'TRANSFER'), meter) }
  }
}

/** Once bytes went, a storage that is busy or fails may have kept some. What it says of the request itself it says before. */
function inItsPhase(failure: TransferFailure, { readableDidRead }: Meter): TransferFailure {
  const { httpStatus = 0 } = failure
  return readableDidRead && (httpStatus >= 500 || httpStatus === 429) ? { ...failure, phase: 'TRANSFER' } : failure
}

function cutOff(error: HttpFailure): TransferFailure {
  const failure = failureOf(SOURCE, error, 'TRANSFER')
  return failure.code === 'CONNECTION_LOST' ? { ...failure, code: 'SOURCE_CUT_OFF' } : failure
}

/** An expired watchdog aborts; what is told is that it expired, not that something was aborted. */
function withCause(outcome: CopyOutcome, expired: TransferFailure | undefined): CopyOutcome {
  if (expired === undefined || outcome.kind === 'done') return outcome
  return { kind: outcome.kind, error: expired }
}
