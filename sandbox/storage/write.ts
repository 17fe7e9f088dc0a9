import { hasCode } from '../private-file.ts'
import { brokenOff } from './break-off.ts'
import type { Exchange, Storage } from './exchange.ts'
import type { Placement, Upload } from './file-tree.ts'
import { exists, full, Refusal, withoutParent } from './refusal.ts'
import { throttled } from './throttle.ts'

export async function put(storage: Storage, exchange: Exchange): Promise<void> {
  // RFC 9110 section 14.5: a server that can't store parts must refuse them, or a part would replace the whole.
  if (exchange.header('content-range') !== undefined) throw new Refusal(400, 'Content-Range is not supported in PUT')
  const mayOverwrite = exchange.mayOverwrite && exchange.header('if-none-match')?.trim() !== '*'
  const mode = await placement(storage, exchange, mayOverwrite)
  const expected = contentLength(exchange)
  storage.files.demandRoom(expected ?? 0)
  const { behaviour } = storage
  await prepareParents(storage, exchange, behaviour.putMakesParents)
  const replaces = (await storage.files.stat(exchange.path)) !== undefined
  const upload = await beginUpload(storage, exchange, mode)
  if (exchange.expectsContinue) exchange.response.writeContinue()
  const { request, response } = exchange
  const { breaksOff, putStatus } = behaviour
  const body = breaksOff?.verb === 'PUT' ? brokenOff(request, breaksOff, response) : request
  await receive(storage, exchange, upload, body, expected)
  await commit(storage, exchange, upload, mode)
  exchange.answer(replaces ? putStatus.replaced : putStatus.created, '')
}

/**
 * How a new file may be placed: `replace` only if the client wants it and the token has modify, since create never
 * overwrites (facts/tokens.md section 1, statement 11). Throws 403 without create, 409 on a directory, 412 if there is
 * a file that the client wants kept, 403 if there is one that the token may not replace.
 */
export async function placement(storage: Storage, exchange: Exchange, mayOverwrite: boolean): Promise<Placement> {
  exchange.demand('create')
  const existing = await storage.files.stat(exchange.path)
  if (existing?.isDirectory()) throw new Refusal(409, 'a directory is there')
  if (existing !== undefined && !mayOverwrite) throw exists()
  if (existing !== undefined) exchange.demand('replace')
  return mayOverwrite && exchange.permits('replace') ? 'replace' : 'exclusive'
}

/** Makes missing parents, which every create and modify includes; a storage that wants them made first refuses. */
export async function prepareParents(storage: Storage, exchange: Exchange, always = false): Promise<void> {
  const parent = exchange.path.slice(0, -1)
  if (storage.behaviour.makeParents || always) return storage.files.makeDirectories(parent)
  if ((await storage.files.stat(parent)) === undefined) throw withoutParent()
}

/** Opens a new file. Throws 507 when it is told that nothing fits, and what `commit` throws if it shows from now on. */
export async function beginUpload(storage: Storage, exchange: Exchange, mode: Placement): Promise<Upload> {
  const { files, behaviour } = storage
  if (behaviour.full === 'at-open') throw full()
  const upload = await files.beginUpload()
  if (behaviour.inPlace) await placing(exchange, mode, () => upload.show(exchange.path, mode))
  return upload
}

/** Reads `body` to its end. When that fails the upload is abandoned and the error passed on. */
export async function receive(
  storage: Storage,
  exchange: Exchange,
  upload: Upload,
  body: AsyncIterable<Uint8Array>,
  expectedBytes: number | undefined,
): Promise<void> {
  const { bytesPerSecond } = storage.behaviour
  try {
    const chunks = bytesPerSecond === undefined ? body : throttled(body, bytesPerSecond, storage.clock)
    for await (const chunk of chunks) {
      const overflows = storage.behaviour.full === 'while-writing'
      await upload.write(overflows ? chunk.subarray(0, chunk.length / 2) : chunk)
      if (overflows) throw full()
    }
    if (expectedBytes !== undefined && upload.bytes !== expectedBytes) {
      throw new Refusal(400, `${upload.bytes} bytes came, ${expectedBytes} were announced`)
    }
  } catch (error) {
    await abandon(storage, exchange, upload)
    throw error
  }
}

/** Leaves nothing, or what has come so far under the final name, as XRootD does. */
export async function abandon(storage: Storage, exchange: Exchange, upload: Upload): Promise<void> {
  if (storage.behaviour.debris) await upload.commit(exchange.path, 'replace')
  else await upload.discard()
}

/** Another writer may have come first since `placement` looked: then the answer is what it would be now. */
export async function commit(storage: Storage, exchange: Exchange, upload: Upload, mode: Placement): Promise<void> {
  await placing(exchange, mode, () => upload.commit(exchange.path, mode))
  await storage.tape?.copies.noteWritten(exchange.path)
}

async function placing(exchange: Exchange, mode: Placement, place: () => Promise<void>): Promise<void> {
  try {
    await place()
  } catch (error) {
    if (mode === 'exclusive' && hasCode(error, 'EEXIST')) {
      if (exchange.mayOverwrite) exchange.demand('replace')
      throw exists()
    }
    throw error
  }
}

function contentLength(exchange: Exchange): number | undefined {
  const length = exchange.header('content-length')
  return length === undefined ? undefined : Number(length)
}
