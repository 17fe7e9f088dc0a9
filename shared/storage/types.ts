import type { Readable } from 'node:stream'
import type { TransferScope } from '../domain/error-catalogue.ts'
import { WaybillError } from '../domain/errors.ts'
import type { Secret } from '../domain/secret.ts'
import type { TransferFailure } from '../domain/transfer-error.ts'
import type { ListSpace } from './multistatus.ts'

/** The checksums Waybill knows. adler32: 8 lower-case hex digits; md5: 32 lower-case hex digits. */
export type ChecksumAlgorithm = 'adler32' | 'md5'
export type Checksums = Readonly<Partial<Record<ChecksumAlgorithm, string>>>

/** What `head` found. A size is absent when the storage does not tell one. */
export type FileStatus =
  | { readonly exists: false }
  | { readonly exists: true; readonly size: number | undefined; readonly checksums: Checksums }

/** One entry of a directory listing. */
export interface ListedEntry {
  /** Decoded absolute path, without a trailing slash. */
  readonly path: string
  readonly directory: boolean
  readonly size: number | undefined
  /** What the storage says of this one alone, when it tells nothing of it. */
  readonly refused?: TransferFailure
}

/** Deadlines of a COPY or of a streamed copy, milliseconds (facts/http-tpc.md section 8). */
export interface Watchdogs {
  readonly connect: number
  readonly headers: number
  readonly noMarker: number
  readonly noProgress: number
  readonly totalBase: number
  readonly totalPerMiB: number
}

export interface CopyRequest {
  /** pull: COPY at the destination. push: COPY at the source. */
  readonly mode: 'pull' | 'push'
  readonly source: string
  readonly destination: string
  /** For the storage that gets the COPY. */
  readonly activeToken: Secret | undefined
  /** For the storage it fetches from or sends to. */
  readonly passiveToken: Secret | undefined
  readonly overwrite: boolean
  /** Expected bytes, for the total deadline. */
  readonly size?: number
  /** The storage takes the COPY: with `Overwrite: F` nothing was in the way, and it may write from now on. */
  readonly onTaken?: () => void
  /** Bytes of all stripes so far. */
  readonly onProgress?: (bytes: number) => void
  readonly signal?: AbortSignal
  readonly watchdogs?: Partial<Watchdogs>
  /** Goes into the storage's log: `job-id=..;file-id=..;retry=n`. */
  readonly clientInfo?: string
}

/**
 * `done`: the storage says success; size and checksum are still to be compared (`bytes` is what markers reported, often
 * less than the file; `checksums` are those of a streamed copy). `failed`: nothing is copying any more, but
 * debris may lie there. `unknown`: the storage may still be copying: look at the destination before anything else.
 */
export type CopyOutcome =
  | { readonly kind: 'done'; readonly bytes: number | undefined; readonly checksums: Checksums }
  | { readonly kind: 'failed'; readonly error: TransferFailure }
  | { readonly kind: 'unknown'; readonly error: TransferFailure }

/** A copy through this process. Overwrites nothing unless told. */
export interface StreamRequest {
  readonly source: string
  readonly destination: string
  readonly sourceToken: Secret | undefined
  readonly destinationToken: Secret | undefined
  readonly overwrite: boolean
  readonly size?: number
  /** Nothing was found in the way, and the PUT goes out. */
  readonly onTaken?: () => void
  readonly onProgress?: (bytes: number) => void
  readonly signal?: AbortSignal
  readonly watchdogs?: Partial<Watchdogs>
}

/** What a macaroon is for, in the words that XRootD and dCache share; both include looking at what it opens. */
export type Activity = 'DOWNLOAD' | 'UPLOAD'

/** A token that a storage issued for itself. */
export interface Macaroon {
  readonly token: Secret
  /** From when it was asked for; at most what was asked for. */
  readonly lifeSeconds: number
}

export interface Options {
  readonly signal?: AbortSignal
  /** The scope that failures get: which storage this is in the transfer at hand. */
  readonly scope?: TransferScope
}

/** Where a storage's tape API answers. */
export interface TapeEndpoint {
  /** Without a slash at its end: `https://tape.example.org:8443/api/v1`. */
  readonly uri: string
  /** As the storage writes it: `v1`, `v1.2`. */
  readonly version: string
  /** Names the storage; undefined when it does not say. */
  readonly sitename: string | undefined
}

export interface FileToStage {
  /** Decoded and absolute, as `tapePath` gives it. */
  readonly path: string
  /**
   * How long the file is wanted on disk, ISO 8601. Hours and minutes (`PT36H`) are understood by all; dCache takes no weeks
   * or months, and EOS ignores it.
   */
  readonly diskLifetime?: string
}

/**
 * What has become of a file of a stage request. `pending`: it waits or comes, and on EOS also a file whose recall was
 * cancelled. `unknown`: the storage said nothing of it, or nothing that can be understood.
 */
export type RecallState =
  | { readonly kind: 'staged' }
  | { readonly kind: 'pending' }
  | { readonly kind: 'failed'; readonly words: string }
  | { readonly kind: 'cancelled' }
  | { readonly kind: 'unknown' }

/** `known` is false when the storage has no such request (any more): it was forgotten, or never made. */
export type StageProgress =
  | { readonly known: false }
  | { readonly known: true; readonly files: ReadonlyMap<string, RecallState> }

/** LOST: for good. UNAVAILABLE: for now. NONE: possible for empty files, which never go to tape. */
export const LOCALITIES = ['DISK', 'TAPE', 'DISK_AND_TAPE', 'LOST', 'NONE', 'UNAVAILABLE'] as const
export type Locality = (typeof LOCALITIES)[number]

/**
 * What a storage says of where a file is. Both absent: it said nothing of it. An error beside a locality: the file is there,
 * and not likely to be written to tape.
 */
export interface ArchiveInfo {
  readonly locality?: Locality
  readonly error?: string
}

/**
 * WLCG Tape REST API v1 (facts/http-tpc.md section 6). `storage` is any address at the storage, whose tape API is found once
 * and remembered for ten minutes; answers are told by the paths that were asked for. Failures have the scope SOURCE,
 * those of `archiveInfo` DESTINATION, unless the options say otherwise.
 */
export interface TapeClient {
  discover(storage: string, token: Secret | undefined, options?: Options): Promise<TapeEndpoint>
  /**
   * One request for all the files; dCache refuses more than 500 (its default) with REQUEST_REFUSED and status 413. When the
   * connection is lost, the storage may have begun a request nobody knows the name of.
   */
  stage(
    storage: string,
    token: Secret | undefined,
    files: readonly FileToStage[],
    options?: Options,
  ): Promise<{ requestId: string; location: string | undefined }>
  poll(
    storage: string,
    token: Secret | undefined,
    requestId: string,
    paths: readonly string[],
    options?: Options,
  ): Promise<StageProgress>
  /** Ends the recall of these files. When one of them is not of this request, REQUEST_REFUSED and nothing is done. */
  cancel(
    storage: string,
    token: Secret | undefined,
    requestId: string,
    paths: readonly string[],
    options?: Options,
  ): Promise<{ known: boolean }>
  /** Cancels what still waits, and the storage forgets the request. Pins stay: release them first. */
  forget(storage: string, token: Secret | undefined, requestId: string, options?: Options): Promise<{ known: boolean }>
  /** The files need not stay on disk for this request. Most storages answer 200 to a request they don't know. */
  release(
    storage: string,
    token: Secret | undefined,
    requestId: string,
    paths: readonly string[],
    options?: Options,
  ): Promise<{ known: boolean }>
  /** An entry for each path that was asked for, in requests of at most 500. */
  archiveInfo(
    storage: string,
    token: Secret | undefined,
    paths: readonly string[],
    options?: Options,
  ): Promise<ReadonlyMap<string, ArchiveInfo>>
}

/**
 * WebDAV, HTTP third-party copy, and tape. All but `copy` and `stream` throw `StorageError`; addresses are absolute URLs.
 */
export interface StorageClient {
  /** A file's size, and with `wantDigest` its checksum; the deadline allows for computing it over `expectedSize` bytes. */
  head(
    url: string,
    token: Secret | undefined,
    options?: Options & { wantDigest?: ChecksumAlgorithm; expectedSize?: number },
  ): Promise<FileStatus>
  /**
   * Stores `body`, which must have `size` bytes and is destroyed on failure; answers the checksums of what was sent.
   * Without `overwrite` it looks first: `PUT` has no condition that storages agree on.
   */
  put(
    url: string,
    token: Secret | undefined,
    body: Readable,
    size: number,
    options: Options & { overwrite: boolean },
  ): Promise<Checksums>
  /** The file, or bytes `first` to `last` (both included) of it. Read the body to its end or destroy it. */
  get(
    url: string,
    token: Secret | undefined,
    options?: Options & { range?: { first: number; last: number } },
  ): Promise<{ body: Readable; size: number | undefined }>
  /** Makes a directory, and its parents where they are missing. Remembers for a minute what exists; callers share it. */
  mkcol(url: string, token: Secret | undefined, options?: Pick<Options, 'scope'>): Promise<void>
  /** Removes a file. `existed` is false when there was none. */
  remove(url: string, token: Secret | undefined, options?: Options): Promise<{ existed: boolean }>
  /**
   * The entries of a directory (PROPFIND depth 1), without the directory itself. An answer that lists anything else is
   * PROTOCOL_VIOLATION, more than fits into `space` REQUEST_REFUSED; the default has room for some hundred thousand entries.
   */
  list(url: string, token: Secret | undefined, options?: Options & { space?: ListSpace }): Promise<ListedEntry[]>
  /**
   * A macaroon for one activity at `url`: for a file, or for all below a directory, which must end in `/` (XRootD before 5.9.1
   * compares paths by characters).
   */
  macaroon(
    url: string,
    token: Secret | undefined,
    options: Options & { activity: Activity; lifeSeconds: number },
  ): Promise<Macaroon>
  copy(request: CopyRequest): Promise<CopyOutcome>
  stream(request: StreamRequest): Promise<CopyOutcome>
  readonly tape: TapeClient
}

/** What the verbs throw. `failure` is for the attempt's record. */
export class StorageError extends WaybillError {
  readonly failure: TransferFailure

  constructor(failure: TransferFailure) {
    super(failure.code, failure.message, { status: 502 })
    this.name = 'StorageError'
    this.failure = failure
  }
}
