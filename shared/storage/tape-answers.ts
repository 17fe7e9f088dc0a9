import { type ArchiveInfo, LOCALITIES, type RecallState } from './types.ts'

/**
 * The answers of tape APIs, in both dialects (facts/http-tpc.md section 6): dCache and StoRM tell a `state`, EOS `onDisk` and
 * `error`. What is no answer at all gives undefined; a single entry that makes no sense is left out. `clean` makes a storage's
 * words fit to be shown.
 */
type Clean = (words: string) => string

/** An error text above this is cut before it is cleaned. */
const WORDS_LIMIT = 16_384

/** Storages give paths back sanitised, or as they were sent. */
export function collapseSlashes(path: string): string {
  return path.replace(/\/{2,}/g, '/')
}

/** A file's path in the tape API: its address's, decoded, without repeated slashes. */
export function tapePath(url: string): string {
  return collapseSlashes(decodeURIComponent(new URL(url).pathname))
}

/** The newest endpoint of version 1 (`v1`, `v1.2`); `none` when there is no such endpoint. */
export function parseDiscovery(
  json: unknown,
): { uri: string; version: string; sitename: string | undefined } | 'none' | undefined {
  if (!isRecord(json) || !Array.isArray(json.endpoints)) return undefined
  const sitename = typeof json.sitename === 'string' ? json.sitename : undefined
  const found = json.endpoints.flatMap((entry: unknown) => {
    if (!isRecord(entry) || typeof entry.uri !== 'string' || typeof entry.version !== 'string') return []
    const minor = /^v1(?:\.(\d{1,6}))?$/i.exec(entry.version)
    return minor === null ? [] : [{ uri: entry.uri, version: entry.version, sitename, minor: Number(minor[1] ?? 0) }]
  })
  const newest = found.toSorted((a, b) => b.minor - a.minor)[0]
  return newest === undefined ? 'none' : { uri: newest.uri, version: newest.version, sitename }
}

/** The name of a stage request; it goes into addresses. */
export function parseReceipt(json: unknown): string | undefined {
  const id = isRecord(json) ? json.requestId : undefined
  return typeof id === 'string' && /^(?!\.+$)[\w.:~-]{1,256}$/.test(id) ? id : undefined
}

/** What has become of each of `paths`. */
export function parseProgress(
  json: unknown,
  paths: readonly string[],
  clean: Clean,
): ReadonlyMap<string, RecallState> | undefined {
  const files = isRecord(json) ? json.files : undefined
  return Array.isArray(files) ? byPath(files, paths, file => recallState(file, clean), { kind: 'unknown' }) : undefined
}

/** Where each of `paths` is. */
export function parseArchiveInfo(
  json: unknown,
  paths: readonly string[],
  clean: Clean,
): ReadonlyMap<string, ArchiveInfo> | undefined {
  return Array.isArray(json) ? byPath(json, paths, file => archiveInfo(file, clean), {}) : undefined
}

type Entry = Readonly<Record<string, unknown>>

function isRecord(value: unknown): value is Entry {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The order is not kept. Entries for one path that contradict each other say nothing. */
function byPath<T>(
  entries: readonly unknown[],
  paths: readonly string[],
  read: (entry: Entry) => T,
  unknown: T,
): ReadonlyMap<string, T> {
  const wanted = new Set(paths.map(collapseSlashes))
  const told = new Map<string, T>()
  for (const entry of entries) {
    if (!isRecord(entry) || typeof entry.path !== 'string') continue
    const path = collapseSlashes(entry.path)
    if (!wanted.has(path)) continue
    const before = told.get(path)
    const now = read(entry)
    told.set(path, before === undefined || JSON.stringify(before) === JSON.stringify(now) ? now : unknown)
  }
  return new Map(paths.map(path => [path, told.get(collapseSlashes(path)) ?? unknown]))
}

function recallState(file: Entry, clean: Clean): RecallState {
  const words = wordsOf(file.error, clean)
  if (typeof file.state === 'string') {
    switch (file.state.toUpperCase()) {
      case 'SUBMITTED':
      case 'STARTED':
        return { kind: 'pending' }
      case 'COMPLETED':
        return { kind: 'staged' }
      case 'CANCELLED':
      case 'CANCELED':
        return { kind: 'cancelled' }
      case 'FAILED':
        return { kind: 'failed', words: words ?? 'the storage gives no reason' }
      default:
        return { kind: 'unknown' }
    }
  }
  if (file.onDisk === true) return { kind: 'staged' }
  if (words !== undefined) return { kind: 'failed', words }
  return file.onDisk === false ? { kind: 'pending' } : { kind: 'unknown' }
}

function archiveInfo(file: Entry, clean: Clean): ArchiveInfo {
  const locality = LOCALITIES.find(known => known === file.locality)
  const error = wordsOf(file.error, clean)
  return { ...(locality !== undefined && { locality }), ...(error !== undefined && { error }) }
}

function wordsOf(error: unknown, clean: Clean): string | undefined {
  return typeof error === 'string' && error.trim() !== '' ? clean(error.slice(0, WORDS_LIMIT)) : undefined
}
