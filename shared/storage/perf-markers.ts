import { StringDecoder } from 'node:string_decoder'

export type MarkerEvent =
  /** A marker was complete. `bytes`: the last figures of all stripes, added up. */
  | { readonly kind: 'marker'; readonly bytes: number }
  /** The last line of a COPY's answer, at most 4096 characters of it. */
  | { readonly kind: 'end'; readonly success: boolean; readonly line: string }

/** A line is kept up to here and the rest of it dropped, whatever a storage sends. */
const LINE_LIMIT = 4096
/** More stripes than any storage uses; further ones are not remembered. */
const STRIPE_LIMIT = 1024
/** Words beside the markers are kept up to here, whole lines. */
const WORDS_LIMIT = 4096
const MARKER_FIELD = /^(timestamp|state|state description|stripe [a-z ]+|total stripe count|remoteconnections)\s*:/i
const LAST_LINE = /^(success|failure|failed|aborted)/i

/**
 * Reads the answer to a COPY as it comes (facts/http-tpc.md section 2): indented or not, keys in any case, unknown lines
 * ignored (but kept as `words` when they are in no marker), several stripes added up, the last line with or without an end
 * of line. After `end` everything is ignored.
 */
export class MarkerParser {
  readonly #decoder = new StringDecoder('utf8')
  readonly #stripes = new Map<number, number>()
  #line = ''
  #stripe = 0
  #stripeBytes: number | undefined
  #ended = false
  #words = ''
  /** How long the words were when the marker began that is not complete yet. */
  #wordsBefore: number | undefined

  /** What was said beside complete markers and before the last line; nobody has looked for tokens in it yet. */
  get words(): string {
    return this.#words
  }

  push(chunk: Buffer): MarkerEvent[] {
    const lines = this.#decoder.write(chunk).split('\n')
    const events: MarkerEvent[] = []
    for (const [index, piece] of lines.entries()) {
      this.#line += piece.slice(0, LINE_LIMIT - this.#line.length)
      if (index < lines.length - 1) this.#takeLine(events)
    }
    return events
  }

  /** The stream is over (or was given up): a last line that had no end of line counts now. */
  end(): MarkerEvent[] {
    const events: MarkerEvent[] = []
    this.#takeLine(events)
    return events
  }

  #takeLine(events: MarkerEvent[]): void {
    // What is cut off could be a token, which nobody would know by its beginning.
    const whole = this.#line.length < LINE_LIMIT
    const line = this.#line.trim()
    this.#line = ''
    if (this.#ended || line === '') return
    if (LAST_LINE.test(line)) {
      this.#ended = true
      events.push({ kind: 'end', success: /^success/i.test(line), line })
      return
    }
    if (/^perf marker$/i.test(line)) this.#begin()
    else if (/^end$/i.test(line)) events.push({ kind: 'marker', bytes: this.#finish() })
    else if (!this.#takeField(line)) this.#keep(whole ? line : line.slice(0, Math.max(0, line.lastIndexOf(' '))))
  }

  #begin(): void {
    this.#stripe = 0
    this.#stripeBytes = undefined
    this.#wordsBefore = this.#words.length
  }

  #keep(line: string): void {
    if (this.#words.length + line.length < WORDS_LIMIT) this.#words += `${line}\n`
  }

  /** Whether it is a field of a marker; most of them say nothing that we need. */
  #takeField(line: string): boolean {
    const field = /^(stripe index|stripe bytes transferred)\s*:\s*(\d{1,15})$/i.exec(line)
    if (field?.[1]?.toLowerCase() === 'stripe index') this.#stripe = Number(field[2])
    else if (field !== null) this.#stripeBytes = Number(field[2])
    return field !== null || MARKER_FIELD.test(line)
  }

  #finish(): number {
    // Fields that only this kind of storage knows.
    this.#words = this.#words.slice(0, this.#wordsBefore)
    this.#wordsBefore = undefined
    const known = this.#stripes.has(this.#stripe) || this.#stripes.size < STRIPE_LIMIT
    if (this.#stripeBytes !== undefined && known) this.#stripes.set(this.#stripe, this.#stripeBytes)
    let sum = 0
    for (const bytes of this.#stripes.values()) sum += bytes
    return sum
  }
}
