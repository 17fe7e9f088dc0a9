import type { Stats } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { Readable } from 'node:stream'
import type { Exchange, Storage } from './exchange.ts'
import { demandOnDisk } from './nearline.ts'
import { type Progress, reportCopy } from './perf-markers.ts'
import { readRange, SMALL_BYTES } from './read.ts'
import { Refusal } from './refusal.ts'
import { askRemote, remoteAddress, remoteFailure, transferHeaders } from './remote.ts'
import { abandon, commit, placement, prepareParents, receive } from './write.ts'

/**
 * HTTP third-party copy: pull with `Source`, push with `Destination` (facts/http-tpc.md section 1). A `Destination` on
 * this storage without anything for a passive side is WebDAV's own COPY (RFC 4918 section 9.8), as rclone sends it.
 */
export async function copy(storage: Storage, exchange: Exchange): Promise<void> {
  if (storage.behaviour.nonsense) return exchange.answer(200, '<html><body>Welcome to the portal</body></html>')
  const source = exchange.header('source')
  const destination = exchange.header('destination')
  const credential = exchange.header('credential')?.trim().toLowerCase() ?? 'none'
  if (credential !== 'none') throw new Refusal(400, 'credentials are not delegated here: send Credential: none')
  if ((source === undefined) === (destination === undefined)) {
    throw new Refusal(400, 'COPY takes a Source (pull) or a Destination (push), one of the two')
  }
  if (source !== undefined) return pull(storage, exchange, source)
  const headers = transferHeaders(exchange)
  const local = exchange.isLocal(storage, destination) && Object.keys(headers).length === 0
  return local ? copyHere(storage, exchange) : push(storage, exchange, destination ?? '', headers)
}

async function pull(storage: Storage, exchange: Exchange, source: string): Promise<void> {
  if (!storage.behaviour.pull) throw new Refusal(501, 'pull is not supported')
  const url = remoteAddress(source)
  const mode = await placement(storage, exchange, exchange.mayOverwrite)
  await prepareParents(storage, exchange)
  const headers = transferHeaders(exchange)
  await reportCopy(storage, exchange, url, async (progress, signal) => {
    const upload = await storage.files.beginUpload()
    const response = await fetchSource().catch(async error => {
      await abandon(storage, exchange, upload)
      throw error
    })
    await receive(storage, exchange, upload, counted(response.body, progress), response.size)
    await commit(storage, exchange, upload, mode)

    async function fetchSource(): Promise<{ body: Readable; size: number | undefined }> {
      const answer = await askRemote(storage, { method: 'GET', url, headers, signal })
      if (answer.status !== 200) throw await remoteFailure(answer)
      const length = answer.headers['content-length']
      return { body: answer.body, size: length === undefined ? undefined : Number(length) }
    }
  })
}

async function push(
  storage: Storage,
  exchange: Exchange,
  destination: string,
  headers: Record<string, string>,
): Promise<void> {
  if (!storage.behaviour.push) throw new Refusal(501, 'push is not supported')
  const url = remoteAddress(destination)
  exchange.demand('read')
  await demandOnDisk(storage, exchange)
  const handle = await storage.files.openFile(exchange.path)
  try {
    const { size } = await demandFile(handle)
    if (!exchange.mayOverwrite) await demandVacant(storage, url, headers)
    await reportCopy(storage, exchange, url, async (progress, signal) => {
      const response = await askRemote(storage, {
        method: 'PUT',
        url,
        // Where the other side knows it, it closes the gap between the look before and the write.
        headers: {
          ...headers,
          'Content-Length': String(size),
          ...(!exchange.mayOverwrite && { 'If-None-Match': '*' }),
        },
        body: () => fileBody(storage, handle, size, progress),
        signal,
      })
      if (![200, 201, 204].includes(response.status)) throw await remoteFailure(response)
      response.body.destroy()
    })
  } finally {
    await handle.close()
  }
}

/** As StoRM does on push (facts/http-tpc.md section 5): look first. Only a file that is surely there refuses. */
async function demandVacant(storage: Storage, url: URL, headers: Record<string, string>): Promise<void> {
  const response = await askRemote(storage, { method: 'HEAD', url, headers, signal: storage.stopping }).catch(error => {
    throw new Refusal(502, error instanceof Error ? error.message : String(error))
  })
  response.body.destroy()
  if (response.status === 200) throw new Refusal(412, 'a file is at the destination already')
}

async function demandFile(handle: FileHandle): Promise<Stats> {
  const stats = await handle.stat()
  if (stats.isDirectory()) throw new Refusal(409, 'directories are not copied')
  return stats
}

/** Small files at one go, since a stream costs more than they do. */
async function fileBody(
  storage: Storage,
  handle: FileHandle,
  size: number,
  progress: Progress,
): Promise<Buffer | Readable> {
  if (size <= SMALL_BYTES) {
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(size), 0, size, 0)
    progress.bytes = bytesRead
    return buffer.subarray(0, bytesRead)
  }
  progress.bytes = 0
  return Readable.from(counted(readRange(storage, handle, 0, size - 1), progress))
}

async function* counted(chunks: AsyncIterable<Uint8Array>, progress: Progress): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    progress.bytes += chunk.length
    yield chunk
  }
}

async function copyHere(storage: Storage, exchange: Exchange): Promise<void> {
  exchange.demand('read')
  await demandOnDisk(storage, exchange)
  const target = exchange.to(exchange.localDestination(storage))
  const mode = await placement(storage, target, exchange.mayOverwrite)
  const handle = await storage.files.openFile(exchange.path)
  try {
    const { size } = await demandFile(handle)
    const replaces = (await storage.files.stat(target.path)) !== undefined
    await prepareParents(storage, target)
    const upload = await storage.files.beginUpload()
    await receive(storage, target, upload, readRange(storage, handle, 0, size - 1), size)
    await commit(storage, target, upload, mode)
    exchange.answer(replaces ? 204 : 201, '')
  } finally {
    await handle.close()
  }
}
