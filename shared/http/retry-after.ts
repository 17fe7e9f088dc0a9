const LONGEST_SECONDS = 86_400

/**
 * `Retry-After` of an answer's headers in seconds, at most a day (RFC 9110 section 10.2.3). The date form is measured against the
 * answer's own `Date`, so that clocks need not agree. undefined: nothing was asked for, or nothing that is understood.
 */
export function retryAfterOf(headers: {
  readonly 'retry-after'?: string | undefined
  readonly date?: string | undefined
}): number | undefined {
  const value = headers['retry-after']?.trim()
  if (!value) return undefined
  const seconds = /^\d{1,9}$/.test(value)
    ? Number(value)
    : Math.ceil((Date.parse(value) - Date.parse(headers.date ?? '')) / 1000)
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), LONGEST_SECONDS) : undefined
}
