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
const LAST_LINE = /^(success|failure|failed|aborted)/i

/**
 * Reads the answer to a COPY as it comes (facts/http-tpc.md section 2): indented or not, keys in any case, unknown lines
 * ignored, several stripes added up, the last line with or without an end of line. After `end` everything is ignored.
 */
export class MarkerParser {
  readonly #decoder = new StringDecoder('utf8')
  readonly #stripes = new Map<number, number>()
  #line = ''
  #stripe = 0
  #stripeBytes: number | undefined
  #ended = false

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
    else this.#takeField(line)
  }

  #begin(): void {
    this.#stripe = 0
    this.#stripeBytes = undefined
  }

  #takeField(line: string): void {
    const field = /^(stripe index|stripe bytes transferred)\s*:\s*(\d{1,15})$/i.exec(line)
    if (field === null) return
    if (field[1]?.toLowerCase() === 'stripe index') this.#stripe = Number(field[2])
    else this.#stripeBytes = Number(field[2])
  }

  #finish(): number {
    const known = this.#stripes.has(this.#stripe) || this.#stripes.size < STRIPE_LIMIT
    if (this.#stripeBytes !== undefined && known) this.#stripes.set(this.#stripe, this.#stripeBytes)
    let sum = 0
    for (const bytes of this.#stripes.values()) sum += bytes
    return sum
  }
}
