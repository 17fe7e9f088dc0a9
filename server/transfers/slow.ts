/** Which links are much slower than others into the same storage, and what should leave them. Pure. */

/** What a link copied lately, and what it may do at a time. */
export interface LinkPace {
  readonly id: number
  readonly destinationId: number
  readonly files: number
  readonly bytes: number
  /** What the files took, added up. */
  readonly milliseconds: number
  /** The link's limit, or its source's where that is less. */
  readonly atOnce: number
}

/** Work may leave the slow one of two links into one storage. */
export interface SlowPair {
  readonly slow: LinkPace
  readonly other: LinkPace
}

/** A link that takes transfers, at most so many. */
export interface Target {
  readonly id: number
  readonly most: number
}

export interface SlowLink {
  readonly id: number
  readonly to: readonly Target[]
  readonly millisecondsEach: number
}

export const SLOW = {
  /** Files that a link must have copied before anything is said of it. */
  files: 20,
  /** Much slower: so many times, both for a file and for a byte, so that small files are not compared with large ones. */
  times: 4,
  /** Transfers are counted up to here: a link that has so many gets no more. */
  counted: 10_000,
} as const

export function slowPairs(links: readonly LinkPace[]): SlowPair[] {
  const into = new Map<number, LinkPace[]>()
  for (const link of links) {
    if (link.files >= SLOW.files) into.set(link.destinationId, [...(into.get(link.destinationId) ?? []), link])
  }
  return [...into.values()].flatMap(alike =>
    alike.flatMap(slow => alike.filter(other => isMuchSlower(slow, other)).map(other => ({ slow, other }))),
  )
}

function isMuchSlower(slow: LinkPace, other: LinkPace): boolean {
  return perFile(slow) >= SLOW.times * perFile(other) && perByte(slow) >= SLOW.times * perByte(other)
}

/** How much goes where, of what is queued on each link (counted up to a bound); what one pair has moved counts for the next. */
export function slowLinks(pairs: readonly SlowPair[], counted: ReadonlyMap<number, number>): SlowLink[] {
  const queued = new Map(counted)
  const found = new Map<number, SlowLink>()
  for (const { slow, other } of pairs) {
    const [here, there] = [queued.get(slow.id) ?? 0, queued.get(other.id) ?? 0]
    const most = shareOf(slow, here, other, there)
    if (most <= 0) continue
    queued.set(slow.id, here - most)
    queued.set(other.id, there + most)
    const to = [...(found.get(slow.id)?.to ?? []), { id: other.id, most }]
    found.set(slow.id, { id: slow.id, to, millisecondsEach: perFile(slow) })
  }
  return [...found.values()]
}

/** So many that what is queued on both takes the same time then. */
function shareOf(slow: LinkPace, here: number, other: LinkPace, there: number): number {
  if (there >= SLOW.counted) return 0
  const [each, eachOther] = [perFile(slow) / slow.atOnce, perFile(other) / other.atOnce]
  return Math.floor((here * each - there * eachOther) / (each + eachOther))
}

function perFile({ files, milliseconds }: LinkPace): number {
  return milliseconds / files
}

/** Empty files say nothing of bytes: the overhead is all there is. */
function perByte({ bytes, milliseconds }: LinkPace): number {
  return milliseconds / Math.max(1, bytes)
}
