import { Readable } from 'node:stream'
import type { HttpResponse } from './client.ts'

/** The reason of a failure that the caller's own body caused. */
export const BODY_FAILED = 'the body to send failed'

/**
 * The answer's body: `source` with its errors told in our own words. What fits the buffer is read without a reader, so a
 * short answer nobody looks at (that of a HEAD) still frees its connection, and its deadlines. `onOver`: nothing comes any
 * more, or nothing is wanted; it may be called twice.
 */
export function answerBody(source: Readable, inWords: (error: unknown) => Error, onOver: () => void): Readable {
  const body = new Readable({
    read() {
      source.resume()
    },
    destroy(error, done) {
      source.destroy()
      onOver()
      done(error)
    },
  })
  source.on('data', (chunk: Buffer) => {
    if (!body.push(chunk)) source.pause()
  })
  source.once('end', () => {
    onOver()
    body.push(null)
  })
  source.once('error', error => body.destroy(inWords(error)))
  source.once('close', () => {
    if (!source.readableEnded) body.destroy(inWords(undefined))
  })
  // An error after the caller has turned away must not end the process; whoever reads still gets it.
  body.on('error', () => undefined)
  return body
}

export async function readText(body: Readable, limitBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    // Leaving the loop destroys the body: the rest is not wanted.
    if (bytes >= limitBytes) break
  }
  return Buffer.concat(chunks).subarray(0, limitBytes).toString('utf8')
}

export function answer(
  status: number,
  headers: Readonly<Record<string, string | string[] | undefined>>,
  body: Readable,
): HttpResponse {
  const joined: Record<string, string> = {}
  for (const name of Object.keys(headers)) {
    const value = headers[name]
    if (value !== undefined) joined[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return { status, headers: joined, body, text: limitBytes => readText(body, limitBytes) }
}
