/** Which links are much slower than others into the same storage, and what should leave them. Pure. */

/** What a link copied lately. */
export interface LinkPace {
  readonly id: number
  readonly destinationId: number
  readonly files: number
  readonly bytes: number
  /** What the files took, added up. */
  readonly milliseconds: number
}

/** Two links into one storage: work may leave the slow one. */
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
  /** What a link that has copied too little is given to be measured by. */
  trial: 10,
  /** Milliseconds that a file takes on the slow link before one that was not measured is tried. */
  worthATrial: 60_000,
} as const

export function slowPairs(links: readonly LinkPace[]): SlowPair[] {
  return links
    .filter(link => link.files >= SLOW.files)
    .flatMap(slow =>
      links
        .filter(other => other.id !== slow.id && other.destinationId === slow.destinationId && isWorthIt(slow, other))
        .map(other => ({ slow, other })),
    )
}

function isWorthIt(slow: LinkPace, other: LinkPace): boolean {
  if (!isMeasured(other)) return perFile(slow) >= SLOW.worthATrial
  return perFile(slow) >= SLOW.times * perFile(other) && perByte(slow) >= SLOW.times * perByte(other)
}

/** How much goes where. `queued`: the transfers queued on each link, counted up to a bound. */
export function slowLinks(pairs: readonly SlowPair[], queued: ReadonlyMap<number, number>): SlowLink[] {
  const found = new Map<number, SlowLink>()
  for (const { slow, other } of pairs) {
    const most = shareOf(slow, queued.get(slow.id) ?? 0, other, queued.get(other.id) ?? 0)
    if (most <= 0) continue
    const to = [...(found.get(slow.id)?.to ?? []), { id: other.id, most }]
    found.set(slow.id, { id: slow.id, to, millisecondsEach: perFile(slow) })
  }
  return [...found.values()]
}

/** So many that what is queued on both takes the same time then; of what was not measured, enough to measure it. */
function shareOf(slow: LinkPace, queuedSlow: number, other: LinkPace, queuedOther: number): number {
  if (!isMeasured(other)) return Math.min(queuedSlow, SLOW.trial - other.files - queuedOther)
  const [each, eachOther] = [perFile(slow), perFile(other)]
  return Math.floor((queuedSlow * each - queuedOther * eachOther) / (each + eachOther))
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
