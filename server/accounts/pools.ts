import type { ServerConfig } from '../config.ts'
import type { LinkName, WorkerRights } from './caller.ts'
import { type Sight, sees } from './sight.ts'
import type { Vos } from './vos.ts'

/** A configured worker pool: whose tokens it comes with, and what it may serve. */
export interface WorkerPool {
  readonly issuer: string
  readonly client: string
  /** `sub` of the tokens that the client gets for itself. */
  readonly subject: string
  readonly rights: WorkerRights
}

export function workerPools({ workers }: Pick<ServerConfig, 'workers'>, vos: Vos): WorkerPool[] {
  return workers.map(({ issuer, client, subject = client, vos: names, rses, activities, links }) => ({
    issuer,
    client,
    subject,
    rights: {
      client,
      ...(names === undefined ? {} : { voIds: names.map(name => vos.named(name).id) }),
      ...(rses === undefined ? {} : { rses }),
      ...(activities === undefined ? {} : { activities }),
      ...(links === undefined ? {} : { links }),
    },
  }))
}

/**
 * The pool whose client got this token for itself, by client credentials: its `sub` is the client's own (facts/tokens.md section
 * 1, statement 5). A person who logs in through the same client has the same `client_id`, and another `sub`.
 */
export function poolOf(
  pools: readonly WorkerPool[],
  bearer: { readonly issuer: string; readonly subject: string; readonly clientId: string | undefined },
): WorkerPool | undefined {
  return pools.find(
    ({ issuer, client, subject }) =>
      issuer === bearer.issuer && subject === bearer.subject && (bearer.clientId ?? client) === client,
  )
}

/** Whether it may serve some VO that is seen, at some storage; `rses` are those that are seen. */
export function servesWithin(
  { rights }: WorkerPool,
  sight: Sight,
  rses: readonly { readonly name: string }[],
): boolean {
  const isSeen = (name: string): boolean => rses.some(rse => rse.name === name)
  return (
    (rights.voIds?.some(voId => sees(sight, voId)) ?? true) &&
    (rights.rses?.some(isSeen) ?? true) &&
    (rights.links?.some(({ source, destination }) => isSeen(source) && isSeen(destination)) ?? true)
  )
}

/** Links in one sentence. */
const NAMED = 20

/**
 * What the pools' configuration does not come to, a sentence each: storages and links that are not there match nothing, which
 * may be meant, since they come and go; what is queued on a link that no pool may serve waits for ever.
 */
export function idleConfinements(
  pools: readonly WorkerPool[],
  rses: readonly string[],
  links: readonly LinkName[],
): string[] {
  const isLink = ({ source, destination }: LinkName): boolean =>
    links.some(link => link.source === source && link.destination === destination)
  const sentences = pools.flatMap(({ client, rights }) => {
    const names = (rights.rses ?? []).filter(name => !rses.includes(name))
    const pairs = (rights.links ?? [])
      .filter(link => !isLink(link))
      .map(link => `${link.source} -> ${link.destination}`)
    return [
      ...(names.length === 0
        ? []
        : [`the pool ${client} is confined to storages that are not there: ${names.join(', ')}`]),
      ...(pairs.length === 0
        ? []
        : [`the pool ${client} is confined to links that are not there: ${pairs.join(', ')}`]),
    ]
  })
  const serves = ({ rights }: WorkerPool, { source, destination }: LinkName): boolean =>
    [source, destination].every(name => rights.rses?.includes(name) ?? true) &&
    (rights.links?.some(link => link.source === source && link.destination === destination) ?? true)
  const unserved = pools.length === 0 ? [] : links.filter(link => !pools.some(pool => serves(pool, link)))
  if (unserved.length > 0) {
    const pairs = unserved.slice(0, NAMED).map(({ source, destination }) => `${source} -> ${destination}`)
    const more = unserved.length > NAMED ? ` and ${unserved.length - NAMED} more` : ''
    sentences.push(`no pool may serve these links, and nothing is copied on them: ${pairs.join(', ')}${more}`)
  }
  const copiesOnly = ({ rights }: WorkerPool): boolean => rights.activities !== undefined || rights.links !== undefined
  if (pools.length > 0 && pools.every(copiesOnly)) {
    sentences.push('all pools are confined to activities or links: none takes imports')
  }
  return sentences
}
