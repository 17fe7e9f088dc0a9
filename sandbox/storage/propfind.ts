import { once } from 'node:events'
import type { Stats } from 'node:fs'
import type { Exchange, Storage } from './exchange.ts'
import { etag } from './read.ts'
import { missing, Refusal } from './refusal.ts'

/** Entries that are looked at together. */
const BATCH = 64

/**
 * PROPFIND, depth 0 or 1, always with the same properties: what davix, gfal2 and rclone ask for. The request's body is
 * not read, as if it asked for `allprop` (RFC 4918 section 9.1).
 */
export async function propfind(storage: Storage, exchange: Exchange): Promise<void> {
  const depth = exchange.header('depth')?.trim().toLowerCase() ?? 'infinity'
  exchange.demandLook(storage)
  if (depth === '1') exchange.demand('list')
  else if (depth !== '0') throw new Refusal(403, 'only depth 0 and 1 are answered (RFC 4918, propfind-finite-depth)')
  const stats = await storage.files.stat(exchange.path)
  if (stats === undefined) throw missing()
  const { response } = exchange
  response.writeHead(207, { 'Content-Type': 'application/xml; charset=utf-8' })
  response.write('<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">\n')
  response.write(entry(exchange.path, stats))
  if (depth === '1' && stats.isDirectory()) await writeChildren(storage, exchange)
  response.end('</D:multistatus>\n')
}

async function writeChildren(storage: Storage, { path, response }: Exchange): Promise<void> {
  const { names, describe } = await storage.files.list(path)
  const closed = once(response, 'close').catch(() => undefined)
  for (let start = 0; start < names.length && !response.destroyed; start += BATCH) {
    const children = names.slice(start, start + BATCH).map(async name => {
      const stats = await describe(name)
      return stats === undefined ? '' : entry([...path, name], stats) // gone since
    })
    if (!response.write((await Promise.all(children)).join(''))) await Promise.race([once(response, 'drain'), closed])
  }
}

function entry(path: readonly string[], stats: Stats): string {
  const directory = stats.isDirectory()
  const href = `/${path.map(encodeURIComponent).join('/')}${directory && path.length > 0 ? '/' : ''}`
  const properties = [
    `<D:displayname>${escapeXml(path.at(-1) ?? '')}</D:displayname>`,
    directory ? '<D:resourcetype><D:collection/></D:resourcetype>' : '<D:resourcetype/>',
    directory ? '' : `<D:getcontentlength>${stats.size}</D:getcontentlength>`,
    `<D:getlastmodified>${stats.mtime.toUTCString()}</D:getlastmodified>`,
    `<D:creationdate>${stats.birthtime.toISOString()}</D:creationdate>`,
    `<D:getetag>${escapeXml(etag(stats))}</D:getetag>`,
  ].join('')
  const propstat = `<D:propstat><D:prop>${properties}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>`
  return `<D:response><D:href>${escapeXml(href)}</D:href>${propstat}</D:response>\n`
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

/** Control characters can't be in XML 1.0 at all; only the display name could hold them. */
function escapeXml(text: string): string {
  return text.replaceAll(/[&<>"]/g, character => ENTITIES[character] ?? '').replaceAll(/\p{Cc}/gu, '\ufffd')
}
