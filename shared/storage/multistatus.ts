import type { ListedEntry } from './types.ts'

/**
 * The entries of a PROPFIND answer (RFC 4918 section 14.16), with the names that servers really use: any namespace prefix,
 * hrefs absolute or with a host. `rawPaths`: hrefs are not percent-encoded, as XRootD 5 sends them [seen]; they are taken
 * so as well when any of them could not have been encoded. Entries without a usable href are left out.
 */
export function parseMultistatus(xml: string, rawPaths: boolean): ListedEntry[] {
  const responses = collectResponses(xml)
  const raw = rawPaths || responses.some(({ href }) => decodePath(href) === undefined)
  const entries: ListedEntry[] = []
  for (const { href, length, collection } of responses) {
    const path = pathOf(href, raw)
    if (path === undefined) continue
    const size = /^\d{1,15}$/.test(length) && !collection ? Number(length) : undefined
    entries.push({ path, directory: collection, size })
  }
  return entries
}

interface Response {
  href: string
  length: string
  collection: boolean
}

interface Token {
  /** Of an element, in lower case, without its prefix. */
  name?: string
  closing?: boolean
  text?: string
}

const TAG = /^<(\/?)(?:[\w.-]+:)?([\w.-]+)(?:[\s/][^<>]*)?>$/

/**
 * Each character is looked at a fixed number of times, whatever a storage sends: an answer may have 64 MB, and no heartbeat is
 * sent meanwhile. What is never closed ends the document.
 */
function* tokensOf(xml: string): Generator<Token> {
  let at = 0
  /** Past the next `mark`, or past the end; `undefined` when there is none. */
  const until = (mark: string, from: number): string | undefined => {
    const end = xml.indexOf(mark, from)
    at = end < 0 ? xml.length : end + mark.length
    return end < 0 ? undefined : xml.slice(from, end)
  }
  while (at < xml.length) {
    if (xml.startsWith('<!--', at)) until('-->', at + 4)
    else if (xml.startsWith('<![CDATA[', at)) yield { text: until(']]>', at + 9) ?? '' }
    else if (xml.startsWith('<', at)) {
      if (until('>', at) === undefined) return
      const [, slash, name] = TAG.exec(xml.slice(xml.lastIndexOf('<', at - 1), at)) ?? []
      if (name !== undefined) yield { name: name.toLowerCase(), closing: slash === '/' }
    } else {
      const end = xml.indexOf('<', at)
      const text = xml.slice(at, end < 0 ? undefined : end)
      at += text.length
      yield { text: decodeEntities(text) }
    }
  }
}

function collectResponses(xml: string): Response[] {
  const responses: Response[] = []
  let current: Response | undefined
  let element = ''
  for (const { name, closing, text } of tokensOf(xml)) {
    if (name !== undefined) {
      element = closing ? '' : name
      if (name === 'response') {
        if (closing && current !== undefined) responses.push(current)
        current = closing ? undefined : { href: '', length: '', collection: false }
      } else if (element === 'collection' && current !== undefined) current.collection = true
    } else if (current !== undefined && text !== undefined) {
      if (element === 'href' && current.href === '') current.href = text.trim()
      else if (element === 'getcontentlength') current.length = text.trim()
    }
  }
  return responses
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

function decodeEntities(text: string): string {
  return text.replace(/&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|(\w{1,8}));/gi, (whole, hex, decimal, name) => {
    if (name !== undefined) return ENTITIES[name] ?? whole
    const point = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16)
    return point <= 0x10ffff ? String.fromCodePoint(point) : whole
  })
}

function pathOf(href: string, raw: boolean): string | undefined {
  const path = href.replace(/^https?:\/\/[^/]*/i, '')
  if (!path.startsWith('/')) return undefined
  const decoded = raw ? path : decodePath(path)
  const collapsed = decoded?.replace(/\/{2,}/g, '/')
  return collapsed === undefined || collapsed === '/' ? collapsed : collapsed.replace(/\/$/, '')
}

/** `undefined` when this cannot be a percent-encoded path. */
function decodePath(path: string): string | undefined {
  if (/[\s#?"<>\\^`{|}]|[^ -~]|%(?![0-9a-f]{2})/i.test(path)) return undefined
  try {
    return decodeURIComponent(path)
  } catch {
    return undefined
  }
}
