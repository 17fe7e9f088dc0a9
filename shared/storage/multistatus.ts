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

const TOKEN =
  /<!--[\s\S]{0,2000}?-->|<!\[CDATA\[([\s\S]*?)\]\]>|<(\/?)(?:[\w.-]+:)?([\w.-]+)(?:\s[^<>]*?)?(\/?)>|<[^<>]*>|([^<]+)/g

function collectResponses(xml: string): Response[] {
  const responses: Response[] = []
  let current: Response | undefined
  let element = ''
  for (const [, cdata, closing, name, , text] of xml.matchAll(TOKEN)) {
    if (name !== undefined) {
      element = closing === '/' ? '' : name.toLowerCase()
      if (name.toLowerCase() === 'response') {
        if (closing === '/' && current !== undefined) responses.push(current)
        current = closing === '/' ? undefined : { href: '', length: '', collection: false }
      } else if (element === 'collection' && current !== undefined) current.collection = true
    } else if (current !== undefined) {
      const content = cdata ?? (text === undefined ? '' : decodeEntities(text))
      if (element === 'href' && current.href === '') current.href = content.trim()
      else if (element === 'getcontentlength') current.length = content.trim()
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
