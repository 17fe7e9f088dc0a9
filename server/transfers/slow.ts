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

/** What is queued on a link, counted up to a bound, and what is active. */
export interface Load {
  readonly queued: number
  readonly active: number
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
  /** Files that a link must have copied before anything is said of it; one that has copied less is given the rest to be measured by. */
  files: 20,
  /** Much slower: so many times, both for a file and for a byte, so that small files are not compared with large ones. */
  times: 4,
  /** Milliseconds that a file takes on the slow link before one that was not measured is tried. */
  worthATrial: 60_000,
  /** Transfers are counted up to here: a link that has so many gets no more. */
  counted: 10_000,
} as const

export function slowPairs(links: readonly LinkPace[]): SlowPair[] {
  const into = new Map<number, LinkPace[]>()
  for (const link of links) into.set(link.destinationId, [...(into.get(link.destinationId) ?? []), link])
  return [...into.values()].flatMap(alike =>
    alike
      .filter(isMeasured)
      .flatMap(slow =>
        alike.filter(other => other.id !== slow.id && isWorthIt(slow, other)).map(other => ({ slow, other })),
      ),
  )
}

function isWorthIt(slow: LinkPace, other: LinkPace): boolean {
  if (!isMeasured(other)) return perFile(slow) >= SLOW.worthATrial
  return perFile(slow) >= SLOW.times * perFile(other) && perByte(slow) >= SLOW.times * perByte(other)
}

/** How much goes where; what one pair has moved counts for the next. */
export function slowLinks(pairs: readonly SlowPair[], loads: ReadonlyMap<number, Load>): SlowLink[] {
  const queued = new Map([...loads].map(([id, load]) => [id, load.queued]))
  const found = new Map<number, SlowLink>()
  for (const { slow, other } of pairs) {
    const [here, there] = [queued.get(slow.id) ?? 0, queued.get(other.id) ?? 0]
    const most = shareOf(slow, here, other, there, loads.get(other.id)?.active ?? 0)
    if (most <= 0) continue
    queued.set(slow.id, here - most)
    queued.set(other.id, there + most)
    const to = [...(found.get(slow.id)?.to ?? []), { id: other.id, most }]
    found.set(slow.id, { id: slow.id, to, millisecondsEach: perFile(slow) })
  }
  return [...found.values()]
}

/** So many that what is queued on both takes the same time then; of what was not measured, enough to measure it. */
function shareOf(slow: LinkPace, here: number, other: LinkPace, there: number, active: number): number {
  if (there >= SLOW.counted) return 0
  if (!isMeasured(other)) return Math.min(here, SLOW.files - other.files - there - active)
  const [each, eachOther] = [perFile(slow) / slow.atOnce, perFile(other) / other.atOnce]
  return Math.floor((here * each - there * eachOther) / (each + eachOther))
}

function isMeasured({ files }: LinkPace): boolean {
  return files >= SLOW.files
}

function perFile({ files, milliseconds }: LinkPace): number {
  return milliseconds / files
}

/** Empty files say nothing of bytes: the overhead is all there is. */
function perByte({ bytes, milliseconds }: LinkPace): number {
  return milliseconds / Math.max(1, bytes)
}
