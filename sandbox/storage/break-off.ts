import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { BreakOff } from './behaviour.ts'

/** The beginning of a request's body; then its connection is closed, or nothing more is read until the client closes it. */
export async function* brokenOff(
  body: AsyncIterable<Uint8Array>,
  { afterBytes, by }: BreakOff,
  response: ServerResponse,
): AsyncGenerator<Uint8Array> {
  let left = afterBytes
  for await (const chunk of body) {
    yield chunk.subarray(0, left)
    left -= chunk.length
    if (left <= 0) break
  }
  await endConnection(response, by)
}

/** The same for an answer's body. */
export async function sendBrokenOff(
  body: AsyncIterable<Uint8Array>,
  { afterBytes, by }: BreakOff,
  response: ServerResponse,
): Promise<void> {
  let left = afterBytes
  for await (const chunk of body) {
    // Sent before the connection ends, which would take along what waits.
    await sent(response, chunk.subarray(0, left))
    if (response.destroyed) return
    left -= chunk.length
    if (left <= 0) break
  }
  await endConnection(response, by)
}

/** Resolves when it was sent, or the client has gone: Node may say nothing then of a write that was under way. */
function sent(response: ServerResponse, part: Uint8Array): Promise<void> {
  return new Promise(resolve => {
    if (response.destroyed) return resolve()
    const over = (): void => {
      response.off('close', over)
      resolve()
    }
    response.once('close', over)
    response.write(part, over)
  })
}

async function endConnection(response: ServerResponse, by: BreakOff['by']): Promise<void> {
  if (by === 'closing') response.destroy()
  else if (!response.destroyed) await once(response, 'close')
}
