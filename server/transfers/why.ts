import { type ReplicaFacts, type Why, type WhyFacts, wordsOf } from './why-facts.ts'
import { blockerAfterBackoff, blockerInQueue, isUsable, noWorker, pathBlocked, tokenMissing } from './why-queued.ts'

/**
 * The one thing that keeps a transfer from going on: what would still be in the way if all others were gone comes first. Pure;
 * the facts are those that claim and planning decide by.
 */
export function why(facts: WhyFacts): Why {
  switch (facts.state) {
    case 'WAITING':
      return whyWaiting(facts)
    case 'QUEUED':
      return blockerInQueue(facts)
    case 'SETTLING':
      return whySettling(facts)
    case 'CLAIMED':
    case 'COPYING':
      return whyActive(facts, facts.state)
    case 'STAGING':
      return whyStaging(facts)
    case 'ARCHIVING': {
      const sentence = `it is at ${facts.destination.name}, which has not written it to tape yet`
      return atTape('ARCHIVING', sentence, { destination: facts.destination.name, since: facts.updatedAt }, facts)
    }
    case 'DONE':
    case 'FAILED':
    case 'CANCELLED':
      return whyEnded(facts, facts.state)
  }
}

function whyWaiting(facts: WhyFacts): Why {
  const { destination, replicas, notBefore, now, way } = facts
  if (!destination.isWritable) {
    return {
      code: 'DESTINATION_CLOSED',
      sentence: `nothing may be written to ${destination.name}: it waits until somebody opens it`,
      figures: { destination: destination.name },
      again: Math.max(now, notBefore),
    }
  }
  if (way !== undefined) {
    return {
      code: 'MULTIHOP',
      sentence: `it goes over ${way.via}: transfer ${way.hop} brings its file there first`,
      figures: { ...way, destination: destination.name },
    }
  }
  if (!replicas.some.some(isUsable)) {
    return {
      code: facts.sources === undefined ? 'NO_SOURCE' : 'NO_ALLOWED_SOURCE',
      sentence: withoutSource(facts),
      figures: { replicas: replicas.total, destination: destination.name, ...given(facts.sources) },
      again: Math.max(now, notBefore),
    }
  }
  const blocker = blockerAfterBackoff(facts)
  if (blocker !== undefined) return blocker
  if (notBefore > now) return whyBackoff(facts)
  return {
    code: 'UNPLANNED',
    sentence: 'it gets a source and a place in the queue within seconds',
    figures: { replicas: replicas.total },
    again: now,
  }
}

/** Also of one that waited for a source which has come meanwhile. */
function whyBackoff({ attempts, lastError, notBefore }: WhyFacts): Why {
  const figures = { attempts, ...(lastError === undefined ? {} : { error: lastError.code }) }
  const sentence =
    lastError === undefined
      ? 'it has a source again, and is planned when its time comes'
      : `its last attempt failed (${wordsOf(lastError)}), and it waits before the next`
  return { code: 'BACKOFF', sentence, figures, again: notBefore }
}

const NAMED = 5

function given(sources: string | undefined): { sources?: string } {
  return sources === undefined ? {} : { sources }
}

function withoutSource({ replicas: { total, some }, destination, sources }: WhyFacts): string {
  if (total === 0) return 'no other storage has a replica of it'
  const obstacle = ({ storage, state, isReadable, isAllowed }: ReplicaFacts): string => {
    if (state !== 'AVAILABLE') return `at ${storage} it is ${state}`
    if (!isAllowed) return `${storage} has one, and is none of them`
    return isReadable ? `${storage} has no link to ${destination.name}` : `${storage} may not be read`
  }
  const named = some.slice(0, NAMED).map(obstacle)
  const more = total > named.length ? [`and ${total - named.length} more`] : []
  const none =
    sources === undefined
      ? 'no replica of it can be used'
      : `none of the storages that its rule names as sources (${sources}) can give it`
  return `${none}: ${[...named, ...more].join('; ')}`
}

function whySettling(facts: WhyFacts): Why {
  const { holder, lastError, notBefore, now, destination, updatedAt } = facts
  const figures = { destination: destination.name, since: updatedAt }
  const unknown =
    lastError === undefined ? 'nobody saw how it ended' : `how it ended is unknown (${wordsOf(lastError)})`
  if (holder !== undefined) {
    const sentence = `${unknown}: the worker ${holder.worker} looks at ${destination.name} now`
    return { code: 'SETTLING', sentence, figures: { ...figures, worker: holder.worker } }
  }
  if (notBefore <= now) {
    const blocker = noWorker(facts) ?? tokenMissing(facts) ?? pathBlocked(facts)
    if (blocker !== undefined) return { ...blocker, sentence: `${unknown}, and nobody can look: ${blocker.sentence}` }
  }
  const sentence = `${unknown}: ${destination.name} is looked at before anything else is done`
  return { code: 'SETTLING', sentence, figures, again: Math.max(now, notBefore) }
}

function whyStaging(facts: WhyFacts): Why {
  const { source, tape, updatedAt } = facts
  const name = source?.name ?? ''
  const figures = { source: name, since: tape?.since ?? updatedAt }
  if (tape === undefined) return { code: 'STAGING', sentence: `${name} is asked anew to bring it from tape`, figures }
  const sentence = tape.isAsked
    ? `${name} was asked to bring it from tape`
    : `${name} will be asked to bring it from tape, with others and within its limit`
  return atTape('STAGING', sentence, figures, facts)
}

function atTape(
  code: 'STAGING' | 'ARCHIVING',
  sentence: string,
  figures: Why['figures'],
  { tape, now }: WhyFacts,
): Why {
  const words = tape?.error === undefined ? '' : ` (its last answer: ${tape.error})`
  return { code, sentence: `${sentence}${words}`, figures, ...(tape && { again: Math.max(now, tape.next) }) }
}

/** While no worker has it, for a moment. */
const BY_ITSELF = { CLAIMED: 'it is about to begin', COPYING: 'it is being copied' } as const
const DOING = { CLAIMED: 'begins', COPYING: 'copies it' } as const

function whyActive(facts: WhyFacts, state: keyof typeof DOING): Why {
  const { holder, bytes, bytesDone, cancelRequested, source, destination } = facts
  const from = source === undefined ? {} : { source: source.name }
  const figures = { ...from, destination: destination.name, bytes, bytesDone }
  const cancelled = cancelRequested ? '; somebody asked to cancel it, and it ends with this attempt' : ''
  if (holder === undefined) {
    return { code: state, sentence: `${BY_ITSELF[state]}${cancelled}`, figures, ...again(facts) }
  }
  const doing = holder.isAlive ? DOING[state] : 'has not been heard of: it is taken from it within seconds'
  return {
    code: state,
    sentence: `the worker ${holder.worker} has it and ${doing}${cancelled}`,
    figures: { ...figures, worker: holder.worker, since: holder.claimedAt },
    ...again(facts),
  }
}

/** What goes on with one that failed for good, by its error. */
const NEXT: Readonly<Record<string, string>> = {
  NO_SOURCE: 'it is copied as soon as it is somewhere again',
  NO_ALLOWED_SOURCE: 'the repair of its rule tries it when one of them has it',
  DESTINATION_CLOSED: 'its rule is repaired when somebody opens it',
}

function whyEnded({ lastError, updatedAt, attempts, bytes }: WhyFacts, state: 'DONE' | 'FAILED' | 'CANCELLED'): Why {
  const figures = { since: updatedAt, attempts }
  if (state === 'DONE') return { code: 'FINISHED', sentence: 'it is done', figures: { ...figures, bytes } }
  if (state === 'CANCELLED') return { code: 'CANCELLED', sentence: 'nobody wants it any more', figures }
  const next = NEXT[lastError?.code ?? ''] ?? 'the repair of its rule tries it again'
  return {
    code: 'FAILED',
    sentence: `it failed${lastError === undefined ? '' : ` (${wordsOf(lastError)})`}: ${next}`,
    figures: { ...figures, ...(lastError === undefined ? {} : { error: lastError.code }) },
  }
}

function again({ notBefore, now }: WhyFacts): { again?: number } {
  return notBefore > now ? { again: notBefore } : {}
}
