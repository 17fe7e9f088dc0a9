/**
 * How a storage's tape system behaves; its tape API in one of the two dialects in the field (facts/http-tpc.md section 6). Never
 * set by HTTP; may be changed in process while the storage runs.
 */
export interface TapeSettings {
  dialect: 'dcache' | 'eos'
  /** So many files are recalled at a time, */
  drives: number
  /** each in so many seconds. */
  secondsPerFile: number
  /** A file is on tape so long after it was written. Empty files never are. */
  archiveSeconds: number
  /** So long it stays on disk once it is on tape too and nobody holds it there. `undefined`: until it is evicted. */
  diskSeconds: number | undefined
  /** Paths as in URLs (`/data/f`) of files whose tape can't be read. */
  lost: readonly string[]
  /** So many of the next requests to the tape API are answered 429, */
  tooMany: number
  /** and told to come again after so long; dCache doesn't say. */
  retryAfterSeconds: number | undefined
  /** dCache: a stage or release request with more files is answered 413. */
  filesPerRequest: number
  /** dCache: archiveinfo looks only at the first so many files of a request, and doesn't say so. */
  filesPerAnswer: number
  /** dCache: how long a GET waits for a file that comes from tape. */
  openSeconds: number
}

/** The limits are dCache's own, but for `filesPerAnswer`, which is 10,000 there. */
export const PATIENT_TAPE: TapeSettings = {
  dialect: 'dcache',
  drives: 2,
  secondsPerFile: 1,
  archiveSeconds: 1,
  diskSeconds: undefined,
  lost: [],
  tooMany: 0,
  retryAfterSeconds: undefined,
  filesPerRequest: 500,
  filesPerAnswer: 100,
  openSeconds: 180,
}
