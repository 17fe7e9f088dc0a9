import { WaybillError } from '../../shared/domain/errors.ts'

/** Lists are read by keyset: the cursor is the last key of the page before, wrapped so that nobody computes with it. */
export function encodeCursor(key: number | string): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url')
}

export function decodeCursor(cursor: string | undefined): number {
  if (cursor === undefined) return 0
  const key = parse(cursor)
  if (typeof key !== 'number' || !Number.isSafeInteger(key)) throw badCursor()
  return key
}

export function decodeTextCursor(cursor: string | undefined): string {
  if (cursor === undefined) return ''
  const key = parse(cursor)
  // No list is by a key with a control character, and no database takes them all.
  if (typeof key !== 'string' || /[\p{Cc}\p{Cs}]/u.test(key)) throw badCursor()
  return key
}

function parse(cursor: string): unknown {
  try {
    return JSON.parse(Buffer.from(cursor, 'base64url').toString())
  } catch {
    throw badCursor()
  }
}

function badCursor(): WaybillError {
  return new WaybillError('CURSOR_INVALID', 'the cursor is not one that this list gave out', {
    status: 400,
    field: 'cursor',
  })
}

/** Cuts rows that were read with `limit + 1` into a page. */
export function pageOf<Row, Item>(
  rows: readonly Row[],
  limit: number,
  key: (row: Row) => number | string,
  item: (row: Row) => Item,
): { items: Item[]; next?: string } {
  const shown = rows.slice(0, limit)
  const last = shown.at(-1)
  const items = shown.map(item)
  return rows.length > limit && last !== undefined ? { items, next: encodeCursor(key(last)) } : { items }
}
