import type { IncomingMessage } from 'node:http'
import { Refusal } from './refusal.ts'
import type { WantedFile } from './tape-recalls.ts'
import type { TapeSettings } from './tape-settings.ts'

/** What a body names: a file's path as it was sent, and its segments. */
export interface WantedPath {
  readonly sent: string
  readonly path: readonly string[]
}

const BODY_LIMIT_BYTES = 16 * 1024 * 1024
const DAY_MS = 86_400_000

/** `{files: [{path, diskLifetime?}]}`. dCache refuses other keys beside `files`; EOS does not look at lifetimes. */
export async function readFiles(
  request: IncomingMessage,
  dialect: TapeSettings['dialect'],
): Promise<(WantedPath & WantedFile)[]> {
  const { files, ...others } = await readObject(request)
  if (dialect === 'dcache' && Object.keys(others).length > 0) {
    throw new Refusal(400, `unrecognized payload element(s): ${JSON.stringify(Object.keys(others))}`)
  }
  if (!Array.isArray(files) || files.length === 0) throw new Refusal(400, 'request contains no files')
  return files.map((file: unknown) => {
    const { path, diskLifetime } = isObject(file) ? file : {}
    return { ...wantedPath(path), pinMs: dialect === 'eos' ? DAY_MS : lifetimeMs(diskLifetime) }
  })
}

/** `{paths: [...]}`. */
export async function readPaths(request: IncomingMessage): Promise<WantedPath[]> {
  const { paths } = await readObject(request)
  if (!Array.isArray(paths) || paths.length === 0) throw new Refusal(400, 'request contains no paths')
  return paths.map(wantedPath)
}

/** Paths are not percent-encoded here. Repeated slashes are dropped, as the specification wants it; dot segments refused. */
function wantedPath(sent: unknown): WantedPath {
  if (typeof sent !== 'string' || !sent.startsWith('/')) throw new Refusal(400, 'a path is missing or is not absolute')
  const path = sent.split('/').filter(Boolean)
  if (path.some(segment => segment === '.' || segment === '..' || segment.includes('\0'))) {
    throw new Refusal(400, 'a path has dot segments or NUL in it')
  }
  return { sent, path }
}

/** ISO 8601, days and below, as Java's Duration takes them; a day when none is given. Milliseconds. */
function lifetimeMs(value: unknown): number | undefined {
  if (value === undefined) return DAY_MS
  if (typeof value !== 'string') return undefined
  const parts = /^P(?=.)(?:(\d{1,6})D)?(?:T(?=.)(?:(\d{1,8})H)?(?:(\d{1,10})M)?(?:(\d{1,10})S)?)?$/
    .exec(value)
    ?.slice(1)
  const [days, hours, minutes, seconds] = (parts ?? []).map(part => Number(part ?? 0))
  if (days === undefined) return undefined
  return (((days * 24 + (hours ?? 0)) * 60 + (minutes ?? 0)) * 60 + (seconds ?? 0)) * 1000
}

async function readObject(request: IncomingMessage): Promise<Readonly<Record<string, unknown>>> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > BODY_LIMIT_BYTES) throw new Refusal(413, 'the request is too large', { Connection: 'close' })
    chunks.push(chunk)
  }
  const body = parseJson(Buffer.concat(chunks).toString('utf8'))
  if (!isObject(body)) throw new Refusal(400, 'badly formed json object')
  return body
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
