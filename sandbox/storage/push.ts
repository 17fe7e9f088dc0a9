import type { FileHandle } from 'node:fs/promises'
import { Readable } from 'node:stream'
import type { HttpResponse } from '../../shared/http/client.ts'
import { parseDigests } from '../../shared/storage/digest.ts'
import { CopyFailed } from './copy-failure.ts'
import type { Exchange, Storage } from './exchange.ts'
import { demandOnDisk } from './nearline.ts'
import { reportCopy } from './perf-markers.ts'
import type { Progress } from './progress.ts'
import { counted } from './pull.ts'
import { demandFile, readRange, SMALL_BYTES } from './read.ts'
import { exists, Refusal } from './refusal.ts'
import { askRemote, remoteAddress, remoteRefusal } from './remote.ts'

/** The file at the other storage, and what to show there. */
interface Target {
  readonly url: URL
  readonly headers: Record<string, string>
}

/** COPY at the source, which sends. */
export async function push(
  storage: Storage,
  exchange: Exchange,
  destination: string,
  headers: Record<string, string>,
): Promise<void> {
  const { behaviour } = storage
  if (!behaviour.push) throw new Refusal(501, 'push is not supported')
  const target = { url: remoteAddress(destination), headers }
  exchange.demand('read')
  await demandOnDisk(storage, exchange)
  const keeps = !exchange.mayOverwrite && behaviour.overwriteOnPush !== 'ignored'
  const handle = await storage.files.openFile(exchange.path)
  try {
    const { size } = await demandFile(handle)
    if (keeps && behaviour.overwriteOnPush === 'refused') await demandVacant(storage, target)
    await reportCopy(storage, exchange, target.url, async (progress, signal) => {
      if (keeps && behaviour.overwriteOnPush === 'reported') await findVacant(storage, target, signal)
      const response = await askRemote(storage, {
        method: 'PUT',
        url: target.url,
        // Where the other side knows it, it closes the gap between the look before and the write.
        headers: { ...headers, 'Content-Length': String(size), ...(keeps && { 'If-None-Match': '*' }) },
        body: () => fileBody(storage, handle, size, progress),
        signal,
      })
      if (![200, 201, 204].includes(response.status)) throw await remoteRefusal(response)
      response.body.destroy()
      if (behaviour.wantsChecksum) await verify(storage, exchange, target, signal)
    })
  } finally {
    await handle.close()
  }
}

/** As StoRM does on push (facts/http-tpc.md section 5): look first. Only a file that is surely there refuses. */
async function demandVacant(storage: Storage, target: Target): Promise<void> {
  const response = await look(storage, target, storage.stopping).catch(error => {
    throw new Refusal(502, error instanceof Error ? error.message : String(error))
  })
  if (response.status === 200) throw exists('a file is at the destination already')
}

/** The same, but in StoRM's own way: within the copy, and what is neither there nor missing ends it. */
async function findVacant(storage: Storage, target: Target, signal: AbortSignal): Promise<void> {
  const { status } = await look(storage, target, signal)
  if (status === 200) throw new CopyFailed({ kind: 'exists', words: 'a file is at the destination already' })
  if (status !== 404) throw new CopyFailed({ kind: 'refused', status, words: '', looked: true })
}

async function look(
  storage: Storage,
  { url, headers }: Target,
  signal: AbortSignal,
  wanted: Record<string, string> = {},
): Promise<HttpResponse> {
  const response = await askRemote(storage, { method: 'HEAD', url, headers: { ...headers, ...wanted }, signal })
  response.body.destroy()
  return response
}

/** dCache looks at what it has sent, and removes what it cannot vouch for (facts/http-tpc.md section 4). */
async function verify(storage: Storage, exchange: Exchange, target: Target, signal: AbortSignal): Promise<void> {
  const found = await look(storage, target, signal, { 'Want-Digest': 'adler32, md5;q=0.5' })
  if (!exchange.requiresChecksum(storage) || Object.keys(parseDigests(found.headers)).length > 0) return
  const { url, headers } = target
  const gone = await askRemote(storage, { method: 'DELETE', url, headers, signal })
  gone.body.destroy()
  throw new CopyFailed({ kind: 'no-checksum', words: 'the destination tells no checksum' })
}

/** Small files at one go, since a stream costs more than they do. */
async function fileBody(
  storage: Storage,
  handle: FileHandle,
  size: number,
  progress: Progress,
): Promise<Buffer | Readable> {
  progress.expected = size
  if (size <= SMALL_BYTES) {
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(size), 0, size, 0)
    progress.bytes = bytesRead
    return buffer.subarray(0, bytesRead)
  }
  progress.bytes = 0
  return Readable.from(counted(readRange(storage, handle, 0, size - 1), progress))
}
