import type { GrantFacts, HoldFacts, ReplicaFacts, Why, WhyFacts } from './why-facts.ts'

/** What may be in the way of a queued transfer. */
type Check = (facts: WhyFacts) => Why | undefined

/**
 * In the order of precedence: what a person closed; workers, which tokens need too; storages that fail; tokens; the place
 * itself. Then what passes by itself: trials, a higher priority (a slot that comes free goes there first), slots. Among equals
 * there is a queue only because slots are few.
 */
const CHECKS: readonly Check[] = [
  closed,
  noWorker,
  destinationHeld,
  sourceHeld,
  tokenRefused,
  tokenMissing,
  pathBlocked,
  onTrial,
  lowerPriority,
  noSlot,
  notItsTurn,
]

export function blockerInQueue(facts: WhyFacts): Why {
  for (const check of CHECKS) {
    const found = check(facts)
    if (found !== undefined) return found
  }
  const { serving, busy } = facts.workers
  return {
    code: 'CLAIMABLE',
    sentence: 'nothing is in its way: a worker takes it as soon as it has room for more',
    figures: { workers: serving, busy },
  }
}

/**
 * What will still be in the way of a waiting transfer when its backoff is over. Of its last source only if there is no other: the
 * next may be another.
 */
export function blockerAfterBackoff(facts: WhyFacts): Why | undefined {
  const { workers, notBefore, replicas, source } = facts
  if (workers.alive === workers.drained) return noWorker(facts)
  const usable = replicas.some.filter(isUsable)
  const isSame = usable.length === 1 && usable[0]?.storage === source?.name
  const certain = isSame ? facts : { ...facts, source: undefined, link: undefined }
  for (const check of OUTLASTING) {
    const found = check(certain)
    if (found?.again !== undefined && found.again > notBefore) return found
  }
  return undefined
}

const OUTLASTING: readonly Check[] = [destinationHeld, sourceHeld, tokenRefused, tokenMissing, pathBlocked]

export function isUsable({ state, isReadable, isLinked, isAllowed }: ReplicaFacts): boolean {
  return state === 'AVAILABLE' && isReadable && isLinked && isAllowed
}

function closed({ source, destination, link, now }: WhyFacts): Why | undefined {
  if (!destination.isWritable) {
    const sentence = `nothing may be written to ${destination.name}: it leaves the queue, and waits until somebody opens it`
    return { code: 'DESTINATION_CLOSED', sentence, figures: { destination: destination.name }, again: now }
  }
  const ends = { source: nameOf(source), destination: destination.name }
  if (source?.isReadable === false) {
    const sentence = `${source.name} may not be read: it looks for another source`
    return { code: 'SOURCE_CLOSED', sentence, figures: { source: source.name }, again: now }
  }
  if (link === undefined || link.distance === 0) {
    const sentence = `there is no link from ${ends.source} to ${ends.destination} any more: it looks for another source`
    return { code: 'LINK_CLOSED', sentence, figures: ends, again: now }
  }
  return undefined
}

export function noWorker({ workers, source, destination }: WhyFacts): Why | undefined {
  const { alive, drained, serving } = workers
  if (serving > 0) return undefined
  const figures = { alive, drained, serving }
  const way = `from ${nameOf(source)} to ${destination.name}`
  if (alive === 0) return { code: 'NO_WORKER', sentence: 'no worker that serves its VO is there', figures }
  if (alive === drained) return { code: 'NO_WORKER', sentence: 'all workers that serve its VO are drained', figures }
  const sentence = `none of the ${alive - drained} workers at work may serve this activity ${way}: their pools are confined to others`
  return { code: 'NO_WORKER', sentence, figures }
}

/** Its destination is full, or fails, for now. */
export function destinationHeld({ destinationHold: hold, destination, now }: WhyFacts): Why | undefined {
  if (hold === undefined || hold.heldUntil <= now) return undefined
  const isFull = hold.code === 'DESTINATION_FULL'
  return {
    code: isFull ? 'STORAGE_FULL' : 'ENDPOINT_HELD',
    sentence: isFull
      ? `${destination.name} is full (${hold.message}): a single file tries it then`
      : held(destination.name, hold),
    ...holdFigures(destination.name, hold),
  }
}

function sourceHeld({ link, source, now }: WhyFacts): Why | undefined {
  const hold = link?.hold
  if (hold === undefined || hold.heldUntil <= now) return undefined
  const name = nameOf(source)
  return { code: 'ENDPOINT_HELD', sentence: held(name, hold), ...holdFigures(name, hold) }
}

function held(storage: string, hold: HoldFacts): string {
  return `${storage} fails (${hold.code}) and is left alone: a few files try it then`
}

function holdFigures(storage: string, { since, heldUntil, code }: HoldFacts): Pick<Why, 'figures' | 'again'> {
  return { figures: { storage, since, error: code }, again: heldUntil }
}

interface Side {
  readonly side: 'source' | 'destination'
  readonly storage: string
  readonly grant: GrantFacts | undefined
}

function sidesOf({ grants, source, destination }: WhyFacts): readonly Side[] {
  const from = { side: 'source', storage: nameOf(source), grant: grants.source } as const
  const to = { side: 'destination', storage: destination.name, grant: grants.destination } as const
  return source === undefined ? [to] : [from, to]
}

function tokenRefused(facts: WhyFacts): Why | undefined {
  for (const { side, storage, grant } of sidesOf(facts)) {
    if (grant === undefined || (grant.state !== 'HELD' && grant.state !== 'REVOKED')) continue
    return {
      code: 'TOKEN_REFUSED',
      sentence: `the token for ${storage} is ${grant.state === 'HELD' ? 'refused' : 'revoked'}${said(grant)}`,
      figures: { side, storage, grant: grant.id },
      ...again(grant.notBefore, facts.now),
    }
  }
  return undefined
}

/** Refused ones too: for what waits for a token, whatever the reason. */
export function tokenMissing(facts: WhyFacts): Why | undefined {
  const refused = tokenRefused(facts)
  if (refused !== undefined) return refused
  for (const { side, storage, grant } of sidesOf(facts)) {
    if (grant === undefined) {
      if (facts.queue.isFarBack) continue
      const sentence = `no token for ${storage} has been asked for yet`
      return { code: 'TOKEN_AWAITED', sentence, figures: { side, storage } }
    }
    if (grant.isUsable && grant.isLongLived) continue
    return {
      code: 'TOKEN_AWAITED',
      sentence: `a token for ${storage} ${awaited(grant)}${said(grant)}`,
      figures: { side, storage, grant: grant.id, state: grant.state },
      ...again(grant.notBefore, facts.now),
    }
  }
  return undefined
}

function awaited({ state, isUsable }: GrantFacts): string {
  if (isUsable) return 'ends soon, and the server gets another'
  return state === 'RENEWING' ? 'waits for a worker to exchange or refresh it' : 'is being got from the issuer'
}

function said({ error }: GrantFacts): string {
  return error === null ? '' : ` (${error})`
}

export function pathBlocked({ permit, destination, now }: WhyFacts): Why | undefined {
  if (permit === undefined || permit.until <= now) return undefined
  const figures = { destination: destination.name }
  if (permit.isPersons) {
    const sentence = `somebody has leave to put the file to ${destination.name} himself`
    return { code: 'PATH_RESERVED', sentence, figures, again: permit.until }
  }
  const sentence = `a worker may still remove what a failed attempt left at ${destination.name}: nothing new begins there`
  return { code: 'PATH_BEING_CLEANED', sentence, figures, again: permit.until }
}

function onTrial({ destinationHold, destination, link, source }: WhyFacts): Why | undefined {
  const trial = (storage: string, hold: HoldFacts): Why => ({
    code: 'ON_TRIAL',
    sentence: `${storage} has failed (${hold.code}) and is tried by a few files: more go there with each that is done`,
    figures: { storage, since: hold.since, done: hold.successes, active: link?.active ?? 0 },
  })
  if (destinationHold !== undefined && destinationHold.room <= 0) return trial(destination.name, destinationHold)
  if (link?.hold !== undefined && link.limit < link.maxActive && link.active >= link.limit) {
    return trial(nameOf(source), link.hold)
  }
  return undefined
}

function lowerPriority({ queue: { urgent, counted } }: WhyFacts): Why | undefined {
  if (urgent === 0) return undefined
  const sentence = `${number(urgent, counted)} of a higher priority ${urgent === 1 ? 'is' : 'are'} queued on its link, and go first`
  return { code: 'LOWER_PRIORITY', sentence, figures: { urgent } }
}

function noSlot({ source, destination, link, queue }: WhyFacts): Why | undefined {
  const limits = [
    {
      code: 'STORAGE_LIMIT_IN',
      what: `${destination.name} takes`,
      ...slots(destination.inbound, destination.maxInbound),
    },
    { code: 'STORAGE_LIMIT_OUT', what: `${nameOf(source)} gives`, ...slots(source?.outbound, source?.maxOutbound) },
    { code: 'LINK_LIMIT', what: 'its link carries', ...slots(link?.active, link?.limit) },
  ] as const
  const full = limits.find(({ active, limit }) => active >= limit)
  if (full === undefined) return undefined
  const { code, what, active, limit } = full
  const sentence =
    limit === 0
      ? `${what} none: its limit is 0`
      : `${what} ${active} now, and ${limit} at most: it waits until one of them ends${behind(queue)}`
  return { code, sentence, figures: { active, limit, before: queue.before } }
}

function slots(active = 0, limit = 0): { active: number; limit: number } {
  return { active, limit }
}

function behind({ before, counted }: WhyFacts['queue']): string {
  return before === 0 ? '' : `, with ${number(before, counted)} before it`
}

function notItsTurn({ queue: { before, counted, isFarBack }, grants, link }: WhyFacts): Why | undefined {
  const places = { active: link?.active ?? 0, limit: link?.limit ?? 0 }
  if (before > 0) {
    return {
      code: 'QUEUE_POSITION',
      sentence: `${number(before, counted)} of the same priority ${before === 1 ? 'is' : 'are'} before it on its link`,
      figures: { before, ...places },
    }
  }
  if (!isFarBack || (grants.source !== undefined && grants.destination !== undefined)) return undefined
  const sentence = 'so much of its activity has tokens on its link that none were asked for it yet'
  return { code: 'QUEUE_POSITION', sentence, figures: places }
}

/** A count that ends at `counted`. */
function number(count: number, counted: number): string {
  return count >= counted ? `${count} or more` : String(count)
}

function nameOf(storage: WhyFacts['source']): string {
  return storage?.name ?? 'its source'
}

function again(at: number, now: number): { again?: number } {
  return at > now ? { again: at } : {}
}
