import type { Exchange, Storage } from './exchange.ts'
import { exists, missing, Refusal, withoutParent } from './refusal.ts'

/**
 * RFC 4918 section 9.3: 405 when something is there, 409 when the parent is missing; unless another storage is played
 * (`mkcol`).
 */
export async function mkcol(storage: Storage, exchange: Exchange): Promise<void> {
  exchange.demand('mkdir')
  if (exchange.header('content-length') !== undefined && exchange.header('content-length') !== '0') {
    throw new Refusal(415, 'MKCOL takes no body')
  }
  const { existing, parents } = storage.behaviour.mkcol
  const found = await storage.files.stat(exchange.path)
  if (found?.isDirectory() && existing === 201) return exchange.answer(201, '')
  if (found !== undefined) throw new Refusal(existing === 409 ? 409 : 405, 'something is there already')
  if (parents) await storage.files.makeDirectories(exchange.path.slice(0, -1))
  if ((await storage.files.stat(exchange.path.slice(0, -1))) === undefined) throw withoutParent()
  await storage.files.makeDirectory(exchange.path)
  exchange.answer(201, '')
}

export async function remove(storage: Storage, exchange: Exchange): Promise<void> {
  exchange.demand('delete')
  if (storage.behaviour.looksNeedRead) exchange.demand('read')
  const stats = await storage.files.stat(exchange.path)
  if (stats === undefined) throw missing()
  if (stats.isDirectory()) await storage.files.removeDirectory(exchange.path)
  else await storage.files.removeFile(exchange.path, stats)
  exchange.answer(storage.behaviour.deleteStatus, '')
}

/**
 * Renaming between granted paths is part of create; taking the place of something is not (facts/tokens.md section 1,
 * 11).
 */
export async function move(storage: Storage, exchange: Exchange): Promise<void> {
  const to = exchange.localDestination(storage)
  exchange.demand('rename')
  exchange.demand('rename', to)
  if ((await storage.files.stat(exchange.path)) === undefined) throw missing()
  const taken = (await storage.files.stat(to)) !== undefined
  if (taken && !exchange.mayOverwrite) throw exists('something is at the destination')
  if (taken) exchange.demand('replace', to)
  if ((await storage.files.stat(to.slice(0, -1))) === undefined) throw withoutParent()
  await storage.files.move(exchange.path, to, taken ? 'replace' : 'exclusive')
  exchange.answer(taken ? 204 : 201, '')
}
