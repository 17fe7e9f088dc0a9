import type { Exchange, Storage } from './exchange.ts'
import { demandOnDisk } from './nearline.ts'
import { pull } from './pull.ts'
import { push } from './push.ts'
import { demandFile, readRange } from './read.ts'
import { Refusal } from './refusal.ts'
import { transferHeaders } from './remote.ts'
import { beginUpload, commit, placement, prepareParents, receive } from './write.ts'

/**
 * HTTP third-party copy: pull with `Source`, push with `Destination` (facts/http-tpc.md section 1). A `Destination` on
 * this storage without anything for a passive side is WebDAV's own COPY (RFC 4918 section 9.8), as rclone sends it.
 */
export async function copy(storage: Storage, exchange: Exchange): Promise<void> {
  if (storage.behaviour.nonsense) return exchange.answer(200, '<html><body>Welcome to the portal</body></html>')
  const source = exchange.header('source')
  const destination = exchange.header('destination')
  const credential = exchange.header('credential')?.trim().toLowerCase()
  if (credential !== undefined && credential !== 'none') {
    throw new Refusal(400, 'credentials are not delegated here: send Credential: none')
  }
  if ((source === undefined) === (destination === undefined)) {
    throw new Refusal(400, 'COPY takes a Source (pull) or a Destination (push), one of the two')
  }
  const headers = transferHeaders(exchange)
  const local = exchange.isLocal(storage, destination) && Object.keys(headers).length === 0
  if (credential === undefined && storage.behaviour.assumesDelegation && !local) {
    throw new Refusal(500, 'Error performing OpenId Connect Token Exchange')
  }
  if (source !== undefined) return pull(storage, exchange, source, headers)
  return local ? copyHere(storage, exchange) : push(storage, exchange, destination ?? '', headers)
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
    const upload = await beginUpload(storage, target, mode)
    await receive(storage, target, upload, readRange(storage, handle, 0, size - 1), size)
    await commit(storage, target, upload, mode)
    exchange.answer(replaces ? 204 : 201, '')
  } finally {
    await handle.close()
  }
}
