/** What of a list is in memory beside its names, bytes for each entry: as it is read, as it is told, and as it is gone through. */
const ENTRY_OVERHEAD = 320
/** What has no end for so long has none. */
const LONGEST_PIECE = 1024 * 1024

/** Where the lists that a process has in memory are counted. */
export interface ListSpace {
  /** False when there is no room for so many bytes more. */
  take(bytes: number): boolean
}

/** One entry of an answer. */
export interface Answered {
  /** Decoded, without host and trailing slash; what is no absolute path is as it was. */
  readonly path: string
  readonly directory: boolean
  readonly size: number | undefined
  /** Of this one alone, where it has one of its own. */
  readonly status?: number
}

/**
 * Reads a PROPFIND answer (RFC 4918 section 14.16) as it comes, so that what else the process has to do, its heartbeats too, is not
 * held up by 100,000 entries. It takes the names that servers really use: any namespace prefix, hrefs absolute or with a host.
 */
export class MultistatusReader {
  readonly #space: ListSpace
  readonly #found: Kept[] = []
  #current: Response | undefined
  #element = ''
  #inPropstat = false
  /** What is not read yet: the rest of it is to come. */
  #rest = ''
  #tail = ''
  #fits = true
  #looksRaw = false

  constructor(space: ListSpace) {
    this.#space = space
  }

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
    return this.#fits && this.#rest.length <= LONGEST_PIECE
  }

  get isWhole(): boolean {
    return /<\/(?:[\w.-]+:)?multistatus\s*>\s*$/.test(this.#tail)
  }

  /** Whether hrefs are not percent-encoded, as XRootD 5 sends them [seen]: one of them could not be. */
  get looksRaw(): boolean {
    return this.#looksRaw
  }

  /** Whether this path is among them, when hrefs are read so. */
  names(path: string, raw: boolean): boolean {
    return this.#found.some(({ href }) => pathOf(href, raw) === path)
  }

  /** Bytes that are no UTF-8 are U+FFFD. */
  entries(raw: boolean): Answered[] {
    return this.#found.map(({ href, size, collection, status }) => ({
      path: pathOf(href, raw),
      directory: collection,
      size: collection ? undefined : size,
      ...(status === undefined ? {} : { status }),
    }))
  }

  #see({ name, closing, text }: Token): void {
    const current = this.#current
    if (name !== undefined) {
      this.#element = closing ? '' : name
      if (name === 'response') {
        if (closing && current !== undefined) this.#keep(current)
        this.#current = closing ? undefined : { href: '', length: '', status: '', collection: false }
        this.#inPropstat = false
      } else if (name === 'propstat') this.#inPropstat = !closing
      else if (this.#element === 'collection' && current !== undefined) current.collection = true
    } else if (current !== undefined && text !== undefined) {
      if (this.#element === 'href' && current.href === '') current.href = text.trim()
      else if (this.#element === 'getcontentlength') current.length = text.trim()
      else if (this.#element === 'status' && !this.#inPropstat) current.status = text.trim()
    }
  }

  #keep({ href, length, status, collection }: Response): void {
    this.#looksRaw ||= isUnencoded(href)
    const own = ownCopy(href)
    // Once as it came, and once as it is told.
    if (!this.#space.take(ENTRY_OVERHEAD + 2 * (isLatin(own) ? own.length : 2 * own.length))) this.#fits = false
    const size = /^\d{1,15}$/.test(length) ? Number(length) : undefined
    const code = /^HTTP\/\S+\s+([1-5]\d\d)\b/i.exec(status)?.[1]
    this.#found.push({ href: own, size, collection, status: code === undefined ? undefined : Number(code) })
  }
}

/** Node keeps the whole of a text as long as any part of it is used, and two bytes a character of what it got so. */
function ownCopy(text: string): string {
  const encoding = isLatin(text) ? 'latin1' : 'utf16le'
  return Buffer.from(text, encoding).toString(encoding)
}

function isLatin(text: string): boolean {
  return /^[\0-\xff]*$/.test(text)
}

interface Response {
  href: string
  length: string
  status: string
  collection: boolean
}

interface Kept {
  readonly href: string
  readonly size: number | undefined
  readonly collection: boolean
  readonly status: number | undefined
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

function pathOf(href: string, raw: boolean): string {
  const path = href.replace(/^https?:\/\/[^/]*/i, '')
  if (!path.startsWith('/')) return href
  const collapsed = (raw ? path : decodePath(path)).replace(/\/{2,}/g, '/')
  return collapsed === '/' ? collapsed : collapsed.replace(/\/$/, '')
}

/** Whether this cannot be a percent-encoded path. */
function isUnencoded(href: string): boolean {
  return /[\s#?"<>\\^`{|}]|[^ -~]|%(?![0-9a-f]{2})/i.test(href)
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    // Its bytes, as far as they are encoded.
    const bytes = path.split(/%([0-9a-f]{2})/i).map((piece, i) => Buffer.from(piece, i % 2 === 0 ? 'utf8' : 'hex'))
    return Buffer.concat(bytes).toString('utf8')
  }
}
