import type { ListedEntry } from './types.ts'

/** What of a list is kept, characters, with some more for each entry: 100,000 entries of XRootD are 40 to 60 MB of XML and 10 of this. */
const MOST_KEPT = 256 * 1024 * 1024
const ENTRY_OVERHEAD = 100
/** What has no end for so long has none. */
const LONGEST_PIECE = 1024 * 1024

/**
 * Reads a PROPFIND answer (RFC 4918 section 14.16) as it comes, so that what else the process has to do, its heartbeats too, is not
 * held up by 100,000 entries. It takes the names that servers really use: any namespace prefix, hrefs absolute or with a host.
 */
export class MultistatusReader {
  readonly #found: Response[] = []
  #current: Response | undefined
  #element = ''
  /** What is not read yet: the rest of it is to come. */
  #rest = ''
  #tail = ''
  #kept = 0

  /** False when it is more than can be kept. Throws what `body` does. */
  async read(body: AsyncIterable<Uint8Array>): Promise<boolean> {
    const decoder = new TextDecoder()
    for await (const chunk of body) {
      if (!this.push(decoder.decode(chunk, { stream: true }))) return false
    }
    return this.push(decoder.decode())
  }

  push(text: string): boolean {
    this.#tail = (this.#tail + text).slice(-200)
    this.#rest += text
    let read = 0
    for (const token of tokensOf(this.#rest)) {
      this.#see(token)
      read = token.end
    }
    this.#rest = this.#rest.slice(read)
    return this.#kept <= MOST_KEPT && this.#rest.length <= LONGEST_PIECE
  }

  get isWhole(): boolean {
    return /<\/(?:[\w.-]+:)?multistatus\s*>\s*$/.test(this.#tail)
  }

  /**
   * `rawPaths`: hrefs are not percent-encoded, as XRootD 5 sends them [seen]; they are taken so as well when any of them could not
   * have been encoded. Entries without a usable href are left out.
   */
  entries(rawPaths: boolean): ListedEntry[] {
    const raw = rawPaths || this.#found.some(({ href }) => decodePath(href) === undefined)
    const entries: ListedEntry[] = []
    for (const { href, length, collection } of this.#found) {
      const path = pathOf(href, raw)
      if (path === undefined) continue
      const size = /^\d{1,15}$/.test(length) && !collection ? Number(length) : undefined
      entries.push({ path, directory: collection, size })
    }
    return entries
  }

  #see({ name, closing, text }: Token): void {
    const current = this.#current
    if (name !== undefined) {
      this.#element = closing ? '' : name
      if (name === 'response') {
        if (closing && current !== undefined) this.#keep(current)
        this.#current = closing ? undefined : { href: '', length: '', collection: false }
      } else if (this.#element === 'collection' && current !== undefined) current.collection = true
    } else if (current !== undefined && text !== undefined) {
      if (this.#element === 'href' && current.href === '') current.href = text.trim()
      else if (this.#element === 'getcontentlength') current.length = text.trim()
    }
  }

  #keep({ href, length, collection }: Response): void {
    this.#kept += href.length + length.length + ENTRY_OVERHEAD
    this.#found.push({ href: ownCopy(href), length: ownCopy(length), collection })
  }
}

/** Node keeps the whole of a text as long as any part of it is used. */
function ownCopy(text: string): string {
  return Buffer.from(text, 'utf16le').toString('utf16le')
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
  /** Past it. */
  end: number
}

const TAG = /^<(\/?)(?:[\w.-]+:)?([\w.-]+)(?:[\s/][^<>]*)?>$/
const COMMENT = '<!--'
const CDATA = '<![CDATA['

/**
 * Those that have ended. Each character is looked at a fixed number of times, whatever a storage sends. What is never closed ends
 * the document.
 */
function* tokensOf(xml: string): Generator<Token> {
  for (let at = 0; at < xml.length; ) {
    const from = at
    const upTo = (mark: string, begin: number): string | undefined => {
      const end = xml.indexOf(mark, begin)
      at = end + mark.length
      return end < 0 ? undefined : xml.slice(begin, end)
    }
    const begins = (mark: string): boolean => xml.startsWith(mark, from)
    // The rest of the mark may be to come.
    if ([COMMENT, CDATA].some(mark => mark.startsWith(xml.slice(from)))) return
    if (begins(COMMENT)) {
      if (upTo('-->', from + COMMENT.length) === undefined) return
      yield { end: at }
    } else if (begins(CDATA)) {
      const text = upTo(']]>', from + CDATA.length)
      if (text === undefined) return
      yield { text, end: at }
    } else if (begins('<')) {
      if (upTo('>', from) === undefined) return
      const [, slash, name] = TAG.exec(xml.slice(xml.lastIndexOf('<', at - 1), at)) ?? []
      yield name === undefined ? { end: at } : { name: name.toLowerCase(), closing: slash === '/', end: at }
    } else {
      const end = xml.indexOf('<', from)
      if (end < 0) return
      at = end
      yield { text: decodeEntities(xml.slice(from, end)), end }
    }
  }
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
