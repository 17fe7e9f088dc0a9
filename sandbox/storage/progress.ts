/** Of a third-party copy. */
export interface Progress {
  /** Bytes that have come or gone so far. */
  bytes: number
  /** That are to come or go, once it is known. */
  expected?: number | undefined
}
