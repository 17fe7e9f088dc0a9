import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Request, Response } from 'express'
import { itemOf, NDJSON, type Route } from '../shared/contract/route.ts'
import { WaybillError } from '../shared/domain/errors.ts'

export interface Page {
  readonly items: readonly unknown[]
  readonly next?: string
}

/** So many are read at a time. */
const ITEMS_PER_PAGE = 1_000

/** Throws 400 INVALID when only so many are wanted: such a list is a page, and as JSON. */
export function asksForLines(row: Route, { headers, query }: Request): boolean {
  const types = (headers.accept ?? '').split(',').map(type => type.split(';')[0]?.trim().toLowerCase())
  if (!types.includes(NDJSON) || itemOf(row) === undefined) return false
  if (query.limit === undefined) return true
  const message = `${NDJSON} gives the whole list, without limit; accept application/json for a page of it`
  throw new WaybillError('INVALID', message, { status: 400, field: 'limit' })
}

/**
 * A list as NDJSON, page after page as fast as the caller reads: of a list of any length one page or two are held. What fails
 * before the first line is answered as ever; later the connection breaks off, so that nobody takes a part for the whole.
 * So does a server that stops: `ready` is asked before each page.
 */
export async function sendLines(
  response: Response,
  page: (query: { limit: number; cursor?: string }) => Promise<Page>,
  ready: () => boolean,
  onAnswer: (body: string) => void = () => undefined,
): Promise<void> {
  const first = await page({ limit: ITEMS_PER_PAGE })
  async function* pages(): AsyncGenerator<string> {
    let { items, next } = first
    for (;;) {
      const lines = items.map(item => `${JSON.stringify(item)}\n`).join('')
      onAnswer(lines)
      yield lines
      if (next === undefined) return
      if (!ready()) throw new WaybillError('NOT_READY', 'the server stops', { status: 503 })
      ;({ items, next } = await page({ limit: ITEMS_PER_PAGE, cursor: next }))
    }
  }
  response.type(NDJSON)
  await pipeline(Readable.from(pages()), response)
}
