import type { Readable } from 'node:stream'
import type { TransferScope } from '../domain/error-catalogue.ts'
import { WaybillError } from '../domain/errors.ts'
import type { Secret } from '../domain/secret.ts'
import type { TransferFailure } from '../domain/transfer-error.ts'

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

/**
 * WebDAV and HTTP third-party copy. All but `copy` and `stream` throw `StorageError`; addresses are absolute URLs.
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
  /** The entries of a directory (PROPFIND depth 1), without the directory itself. */
  list(url: string, token: Secret | undefined, options?: Options): Promise<ListedEntry[]>
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
