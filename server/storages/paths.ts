import { createHash } from 'node:crypto'
import { WaybillError } from '../../shared/domain/errors.ts'
import { type Did, formatDid } from '../../shared/domain/names.ts'

/**
 * Where a replica lives at its RSE (lfn2pfn): decided once, when the replica's row is made (facts/rules.md, "Paths").
 * All names were checked by `shared/domain/names.ts`: legal ASCII without `~`, dot segments or empty segments.
 */
export type Layout = 'dataset' | 'identity' | 'hash'

/** What a storage lays out, and where. */
export interface LaidOut {
  readonly prefix: string
  readonly layout: Layout
}

/** Absolute below the RSE's prefix, without trailing slashes: `{top: '/foo/ds', directory: '/foo/ds/raw', name: 'f.root'}`. */
export interface ReplicaPath {
  /** The directory that tokens are asked for: the dataset's, or the file's own where the layout knows no datasets. */
  top: string
  directory: string
  /** The last segment. */
  name: string
}

/**
 * `dataset` is undefined for a file in no dataset. Under the layout `dataset` two files share a path only if they are of one
 * dataset and their names differ by the leading slash, or by the dataset's name before them, alone (`a`, `/a`, `ds/a`): the
 * store refuses the second (PATH_TAKEN).
 */
export function replicaPath(layout: Layout, file: Did, dataset?: Did): ReplicaPath {
  switch (layout) {
    case 'dataset':
      return datasetPath(file, dataset)
    case 'identity':
      return pathOf([file.scope], segmentsOf(file.name))
    case 'hash':
      return hashPath(file)
  }
}

/** `~` is legal in no name: it stands for a slash, for "no dataset", and before the scope of a file from another scope. */
function datasetPath(file: Did, dataset: Did | undefined): ReplicaPath {
  const top = `/${dataset?.scope ?? file.scope}/${dataset?.name.replaceAll('/', '~') ?? '~'}`
  const foreign = dataset !== undefined && dataset.scope !== file.scope ? [`~${file.scope}`] : []
  const { directory, name } = pathOf(foreign, segmentsOf(nameWithin(file, dataset)))
  return { top, directory: `${top}${directory}`, name }
}

/**
 * The directory that tokens are asked for, of an imported file: what was imported, unless that is so near the prefix that it
 * would cover datasets which the layout puts there: then the directory's first two segments, as a dataset has (`/scope/name`).
 * All paths absolute; `directory` is at or below `imported`.
 */
export function topWithin(prefix: string, imported: string, directory: string): string {
  const below = belowPrefix(prefix, directory).slice(0, 2)
  const narrow = [prefix, ...below].join('/')
  return imported.length >= narrow.length ? imported : narrow
}

/** What lies below the prefix, by segments. `directory` is absolute, at or below the prefix. */
function belowPrefix(prefix: string, directory: string): string[] {
  return directory.slice(prefix.length).split('/').slice(1)
}

/** The scopes, by name, in whose directory this one is, or which have it: those of them that there are. Absolute paths. */
export function scopesAround({ prefix, layout }: LaidOut, directory: string): string[] {
  const segments = belowPrefix(prefix, directory)
  const [first] = segments
  if (first === undefined) return []
  if (layout !== 'hash' || !isPersonal(first)) return [first]
  return segments.map((_, i) => segments.slice(0, i + 1).join('.'))
}

/** Names from `low` on, without `high`, by their bytes. */
export interface NameRange {
  readonly low: string
  readonly high: string
}

/**
 * The scopes of which the layout puts more into this directory than one dataset's files, or one hash's: a token for it would open that
 * too. `identity` knows no datasets, and a scope's directory is all that there is of flat names. Absolute paths.
 */
export function scopesInside({ prefix, layout }: LaidOut, directory: string): NameRange[] {
  const segments = belowPrefix(prefix, directory)
  const [first] = segments
  if (first === undefined) return [{ low: '', high: AFTER_ALL }]
  if (layout === 'identity') return []
  const name = segments.join('.')
  if (layout === 'hash' && isPersonal(first)) return [exactly(name), { low: `${name}.`, high: `${name}/` }]
  return segments.length === 1 ? [exactly(name)] : []
}

/** Paths and names have no control characters, and names are ASCII without `~`. */
const AFTER_ALL = '~'
export function exactly(name: string): NameRange {
  return { low: name, high: `${name}\u0001` }
}

/** An imported file is called after its dataset (`run1/raw/f` in `run1`): the dataset's directory says that already. */
function nameWithin(file: Did, dataset: Did | undefined): string {
  const within = dataset?.scope === file.scope && file.name.startsWith(`${dataset.name}/`)
  return within ? file.name.slice(dataset.name.length + 1) : file.name
}

function hashPath(file: Did): ReplicaPath {
  const md5 = createHash('md5').update(formatDid(file)).digest('hex')
  const scope = isPersonal(file.scope) ? file.scope.split('.') : [file.scope]
  return pathOf([...scope, md5.slice(0, 2), md5.slice(2, 4)], segmentsOf(file.name))
}

function isPersonal(scope: string): boolean {
  return scope.startsWith('user') || scope.startsWith('group')
}

function segmentsOf(name: string): string[] {
  return (name.startsWith('/') ? name.slice(1) : name).split('/')
}

function pathOf(above: readonly string[], file: readonly string[]): ReplicaPath {
  const directory = [...above, ...file.slice(0, -1)].map(segment => `/${segment}`).join('')
  return { top: directory, directory, name: file.at(-1) ?? '' }
}

/** The URL of a replica. Throws as `storageUrl` does. */
export function replicaUrl(protocolUrl: string, directory: string, name: string): string {
  return storageUrl(protocolUrl, `${directory}/${name}`)
}

/**
 * The URL of a file or directory: `protocolUrl` is where paths begin (`https://host:1094`), each segment is percent-encoded.
 * Throws 400 PATH_INVALID on empty and dot segments (an imported path has not been through the name rules).
 */
export function storageUrl(protocolUrl: string, path: string): string {
  const segments = segmentsOf(path)
  const wrong = segments.find(segment => segment === '' || segment === '.' || segment === '..')
  if (wrong !== undefined) {
    const words = `the path ${JSON.stringify(path)} has an empty or dot segment`
    throw new WaybillError('PATH_INVALID', words, { status: 400 })
  }
  return `${protocolUrl.replace(/\/+$/, '')}/${segments.map(encodeURIComponent).join('/')}`
}
