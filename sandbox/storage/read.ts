import type { Stats } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Behaviour } from './behaviour.ts'
import { sendBrokenOff } from './break-off.ts'
import { type Algorithm, Digester, wantedAlgorithm } from './checksums.ts'
import type { Exchange, Storage } from './exchange.ts'
import { demandOnDisk } from './nearline.ts'
import { missing, Refusal } from './refusal.ts'
import { throttled } from './throttle.ts'

/** Files up to this size are read at one go: a stream costs more than they do. */
export const SMALL_BYTES = 64 * 1024
const READ_BYTES = 256 * 1024

export async function head(storage: Storage, exchange: Exchange): Promise<void> {
  exchange.demandLook(storage)
  const stats = await existing(storage, exchange)
  if (stats.isDirectory()) return exchange.answer(200, '')
  exchange.response.writeHead(200, {
    ...validators(stats),
    ...(await digestHeader(storage, exchange, stats)),
    'Content-Length': stats.size,
    'Accept-Ranges': 'bytes',
  })
  exchange.response.end()
}

/** The file, or one range of it. Several ranges get the whole file, as RFC 9110 section 14.2 allows. */
export async function get(storage: Storage, exchange: Exchange): Promise<void> {
  exchange.demand('read')
  await demandOnDisk(storage, exchange)
  const handle = await storage.files.openFile(exchange.path)
  try {
    const stats = await handle.stat()
    if (stats.isDirectory()) throw new Refusal(409, 'this is a directory: list it with PROPFIND')
    const range = byteRange(exchange.header('range'), stats.size)
    if (range === 'unsatisfiable') {
      throw new Refusal(416, 'no such range in the file', { 'Content-Range': `bytes */${stats.size}` })
    }
    const { first, last } = range ?? { first: 0, last: stats.size - 1 }
    exchange.response.writeHead(range === undefined ? 200 : 206, {
      ...validators(stats),
      ...(await digestHeader(storage, exchange, stats)),
      ...(range !== undefined && { 'Content-Range': `bytes ${first}-${last}/${stats.size}` }),
      'Content-Type': 'application/octet-stream',
      'Content-Length': last - first + 1,
      'Accept-Ranges': 'bytes',
    })
    await send(storage, exchange, handle, first, last)
  } finally {
    await handle.close()
  }
}

async function send(
  storage: Storage,
  { response }: Exchange,
  handle: FileHandle,
  first: number,
  last: number,
): Promise<void> {
  const bytes = last - first + 1
  const { bytesPerSecond, breaksOff } = storage.behaviour
  if (breaksOff?.verb === 'GET') return sendBrokenOff(readRange(storage, handle, first, last), breaksOff, response)
  if (bytes <= SMALL_BYTES && bytesPerSecond === undefined) {
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(bytes), 0, bytes, first)
    response.end(buffer.subarray(0, bytesRead))
    return
  }
  await pipeline(readRange(storage, handle, first, last), response)
}

export async function demandFile(handle: FileHandle): Promise<Stats> {
  const stats = await handle.stat()
  if (stats.isDirectory()) throw new Refusal(409, 'directories are not copied')
  return stats
}

/** Bytes `first` to `last`, both included, at the storage's pace. Leaves the handle open. */
export function readRange(storage: Storage, handle: FileHandle, first: number, last: number): Readable {
  if (last < first) return Readable.from([])
  const file = handle.createReadStream({ start: first, end: last, highWaterMark: READ_BYTES, autoClose: false })
  const { bytesPerSecond } = storage.behaviour
  if (bytesPerSecond === undefined) return file
  return Readable.from(throttled(file, bytesPerSecond, storage.clock))
}

async function existing(storage: Storage, exchange: Exchange): Promise<Stats> {
  const stats = await storage.files.stat(exchange.path)
  if (stats === undefined) throw missing()
  return stats
}

export function validators(stats: Stats): Record<string, string> {
  return { ETag: etag(stats), 'Last-Modified': stats.mtime.toUTCString() }
}

export function etag(stats: Stats): string {
  return `"${stats.ino.toString(16)}-${Math.floor(stats.mtimeMs * 1000).toString(16)}-${stats.size.toString(16)}"`
}

/** Of a file that is empty. */
const STRAY = new Digester().finish()

async function digestHeader(storage: Storage, exchange: Exchange, stats: Stats): Promise<Record<string, string>> {
  const { behaviour } = storage
  const wanted = exchange.header('want-digest')
  const wantedToo = behaviour.reprDigest && wanted === undefined ? exchange.header('want-repr-digest') : undefined
  const algorithm = toldAlgorithm(behaviour, wanted ?? wantedToo)
  if (algorithm === undefined) return {}
  const checksums = await storage.files.checksumsOf(exchange.path, stats)
  if (wantedToo !== undefined) return { 'Repr-Digest': `${algorithm}=:${base64Of(algorithm, checksums[algorithm])}:` }
  if (behaviour.strayChecksums > 0) {
    behaviour.strayChecksums -= 1
    return { Digest: `${algorithm}=${STRAY[algorithm]}` }
  }
  return { Digest: `${algorithm}=${checksums[algorithm]}` }
}

function toldAlgorithm({ checksums, unknownChecksum }: Behaviour, wanted: string | undefined): Algorithm | undefined {
  const known = wantedAlgorithm(wanted, checksums)
  return known === undefined && wanted !== undefined && unknownChecksum === 'first' ? checksums[0] : known
}

/** RFC 9530 has bytes in base64 for all; RFC 3230 has adler32 in hex. */
function base64Of(algorithm: Algorithm, value: string): string {
  return algorithm === 'adler32' ? Buffer.from(value, 'hex').toString('base64') : value
}

interface Range {
  readonly first: number
  readonly last: number
}

/** RFC 9110 section 14.1.2. What isn't one plain byte range counts as none. */
export function byteRange(header: string | undefined, size: number): Range | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.replaceAll(' ', '') ?? '')
  const [from = '', to = ''] = match?.slice(1) ?? []
  if (from === '' && to === '') return undefined
  const first = from === '' ? Math.max(0, size - Number(to)) : Number(from)
  const last = from === '' || to === '' ? size - 1 : Math.min(Number(to), size - 1)
  if (from !== '' && to !== '' && Number(to) < Number(from)) return undefined
  return first > last ? 'unsatisfiable' : { first, last }
}
