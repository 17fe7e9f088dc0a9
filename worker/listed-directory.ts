import type { SharedSpace, SpaceLease } from '../shared/storage/list-space.ts'
import type { ListedEntry } from '../shared/storage/types.ts'
import type { Place, StorageAccess } from './access.ts'

/** What one directory holds, in the order of paths; its memory is counted until it is closed. */
export interface ListedDirectory {
  readonly place: Place
  readonly entries: readonly ListedEntry[]
  close(): void
}

/** One name in a directory. */
export interface Child {
  readonly name: string
  /** How many entries have this name. */
  readonly alike: number
  readonly entry: ListedEntry
  /** Below the imported directory. */
  readonly path: string
  /** The directory it is in. */
  readonly place: Place
}

/** Lists the directory `path` below `root`. One that does not fit beside the lists of others waits until it does. */
export async function listDirectory(
  root: Place,
  path: string,
  { access, space, signal }: { access: StorageAccess; space: SharedSpace; signal: AbortSignal },
): Promise<ListedDirectory> {
  const encoded = path === '' ? '' : `/${path.split('/').map(encodeURIComponent).join('/')}`
  const address = root.url.replace(/\/+$/, '')
  // A directory may be forbidden by itself: dCache says 401 then. Whether the token is good, the first one tells.
  const place = { ...root, url: `${address}${encoded}`, provenAt: address }
  for (;;) {
    const lease = space.open()
    try {
      const entries = await access.use(place, token =>
        place.storage.list(place.url, token, { scope: 'SOURCE', signal, space: lease }),
      )
      const inOrder = entries.sort((one, other) => (one.path < other.path ? -1 : one.path > other.path ? 1 : 0))
      return { place, entries: inOrder, close: () => lease.close() }
    } catch (error) {
      if (!isCutOff(lease)) {
        lease.close()
        throw error
      }
      await space.roomFor(lease, signal)
      if (signal.aborted) throw error
    }
  }
}

function isCutOff({ cutOff }: SpaceLease): boolean {
  return cutOff?.others === true
}

/** Those of its names that come after `doneUntil`, each once. */
export function childrenOf(path: string, { place, entries }: ListedDirectory, doneUntil?: string): Child[] {
  const below = path === '' ? '' : `${path}/`
  const children: (Child & { alike: number })[] = []
  for (const entry of entries) {
    const name = entry.path.slice(entry.path.lastIndexOf('/') + 1)
    if (doneUntil !== undefined && name <= doneUntil) continue
    const before = children.at(-1)
    if (before?.name === name) before.alike += 1
    else children.push({ name, alike: 1, entry, path: `${below}${name}`, place })
  }
  return children
}
