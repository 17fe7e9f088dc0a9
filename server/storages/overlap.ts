import { WaybillError } from '../../shared/domain/errors.ts'

/** What tells where a storage's files lie. */
export interface Placed {
  readonly name: string
  readonly prefix: string
  readonly protocols: readonly { readonly url: string }[]
}

/**
 * Two storages in one place have one file for two replicas, and what is deleted at one is gone at the other. Throws 409 RSE_OVERLAPS where
 * `placed` would lie at, above or below another by any of their URLs.
 */
export function demandOwnPlace(placed: Placed, others: readonly Placed[]): void {
  const own = placesOf(placed)
  const other = others.find(
    ({ name, ...rest }) =>
      name !== placed.name && placesOf({ name, ...rest }).some(place => own.some(mine => overlap(place, mine))),
  )
  if (other === undefined) return
  const message = `${placed.prefix} is where ${other.name} has its files already (${other.prefix}): what is deleted at one would be gone at the other; give each a prefix of its own`
  throw new WaybillError('RSE_OVERLAPS', message, { status: 409, field: 'prefix' })
}

/** Host, port and path, with a slash at the end. */
function placesOf({ prefix, protocols }: Placed): string[] {
  return protocols.map(({ url }) => {
    const { hostname, port, protocol, pathname } = new URL(url)
    const at = `${hostname}:${port === '' ? (protocol === 'http:' ? '80' : '443') : port}`
    return `${at}${`${pathname}/${prefix}/`.replace(/\/{2,}/g, '/')}`
  })
}

function overlap(one: string, other: string): boolean {
  return one.startsWith(other) || other.startsWith(one)
}
