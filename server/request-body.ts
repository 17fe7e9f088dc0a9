import type { IncomingMessage } from 'node:http'
import { WaybillError } from '../shared/domain/errors.ts'

export const BODY_LIMIT_BYTES = 20 * 1024 * 1024

/**
 * The request's JSON. Called once the caller may do what it asks for, so a stranger's body is never kept. Of a body that is
 * too large no more than the limit is ever held: the rest is read past. Throws `CONTENT_TYPE` (415), `BODY_TOO_LARGE` (413)
 * or `JSON_MALFORMED` (400).
 */
export async function readJson(request: IncomingMessage, limit = BODY_LIMIT_BYTES): Promise<unknown> {
  checkType(request)
  return parseJson(await readText(request, limit))
}

function checkType({ headers }: IncomingMessage): void {
  const type = headers['content-type'] ?? ''
  if (!/^application\/json *(; *charset="?utf-8"? *)?$/i.test(type)) {
    throw new WaybillError('CONTENT_TYPE', 'send the body as JSON: Content-Type: application/json', { status: 415 })
  }
  if ((headers['content-encoding'] ?? 'identity') !== 'identity') {
    throw new WaybillError('CONTENT_TYPE', 'send the body without Content-Encoding', { status: 415 })
  }
}

function readText(request: IncomingMessage, limit: number): Promise<string> {
  const tooLarge = new WaybillError(
    'BODY_TOO_LARGE',
    `the body is larger than ${limit} bytes: send it in smaller parts`,
    { status: 413 },
  )
  if (Number(request.headers['content-length'] ?? 0) > limit) return Promise.reject(tooLarge)
  return new Promise<string | undefined>((resolve, reject) => {
    if (request.destroyed && !request.readableEnded) reject(cutOff())
    let chunks: Buffer[] = []
    let bytes = 0
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= limit) {
        chunks.push(chunk)
        return
      }
      chunks = []
      reject(tooLarge)
    })
    request.once('end', () => resolve(decode(Buffer.concat(chunks))))
    request.once('error', () => reject(cutOff()))
    request.once('close', () => reject(cutOff()))
  }).then(text => {
    if (text === undefined) throw malformed('it is not UTF-8')
    return text
  })
}

function cutOff(): WaybillError {
  return new WaybillError('BODY_CUT_OFF', 'the connection ended before the body', { status: 400 })
}

function decode(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return undefined
  }
}

/** Exported for its tests. The engine's own message is not passed on: it quotes the body, which may hold a token. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw malformed(place(text, error))
  }
}

function malformed(what: string): WaybillError {
  return new WaybillError('JSON_MALFORMED', `the body is not JSON: ${what}`, { status: 400 })
}

/** Beyond this the search would cost too much; what the engine says itself is said at any length. */
const SEARCHED_CHARACTERS = 1024 * 1024

function place(text: string, error: unknown): string {
  const position = enginePosition(error) ?? (text.length <= SEARCHED_CHARACTERS ? searchPosition(text) : undefined)
  if (position === undefined) return 'somewhere in it'
  if (position >= text.length) return 'it ends too early'
  const before = text.slice(0, position).split('\n')
  return `line ${before.length}, column ${(before.at(-1) ?? '').length + 1} (position ${position})`
}

function enginePosition(error: unknown): number | undefined {
  const [, digits] = /at position (\d+)/.exec(error instanceof Error ? error.message : '') ?? []
  return digits === undefined ? undefined : Number(digits)
}

/** For some errors V8 only quotes: the longest beginning that could still become JSON ends where the error is. */
function searchPosition(text: string): number {
  let good = 0
  let bad = text.length + 1
  while (bad - good > 1) {
    const middle = (good + bad) >>> 1
    if (couldGoOn(text.slice(0, middle))) good = middle
    else bad = middle
  }
  return good
}

function couldGoOn(beginning: string): boolean {
  try {
    JSON.parse(beginning)
    return true
  } catch (error) {
    if (error instanceof Error && /end of JSON input/.test(error.message)) return true
    return (enginePosition(error) ?? -1) >= beginning.length
  }
}
