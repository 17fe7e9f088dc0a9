interface Page<T> {
  readonly items: readonly T[]
  readonly next?: string | undefined
}

/** All pages of a list. `read` gets what goes into the query beside its filters. */
export async function* pages<T>(
  read: (at: { limit: number; cursor?: string }) => Promise<Page<T>>,
): AsyncGenerator<readonly T[]> {
  let cursor: string | undefined
  do {
    const page = await read({ limit: 1000, ...(cursor === undefined ? {} : { cursor }) })
    yield page.items
    cursor = page.next
  } while (cursor !== undefined)
}

/** Pieces of `items`, in order, `size` each. */
export function* chunks<T>(items: readonly T[], size: number): Generator<T[]> {
  for (let start = 0; start < items.length; start += size) yield items.slice(start, start + size)
}
