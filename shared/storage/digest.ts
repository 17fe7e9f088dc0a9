import type { ChecksumAlgorithm, Checksums } from './types.ts'

/** Names in `Digest` (RFC 3230) and `Repr-Digest` (RFC 9530, which registers adler32 as `adler`). */
const ALGORITHMS: Readonly<Record<string, ChecksumAlgorithm>> = { adler32: 'adler32', adler: 'adler32', md5: 'md5' }
const BYTES: Readonly<Record<ChecksumAlgorithm, number>> = { adler32: 4, md5: 16 }

/**
 * The checksums that an answer's headers hold. Asked for an algorithm it does not have, XRootD sends its first one
 * (facts/http-tpc.md section 3), so look the wanted one up by name. What is unknown or malformed is left out.
 */
export function parseDigests(headers: Readonly<Record<string, string>>): Checksums {
  const found: Partial<Record<ChecksumAlgorithm, string>> = {}
  for (const header of [headers['repr-digest'], headers.digest]) {
    for (const part of (header ?? '').split(',')) {
      const at = part.indexOf('=')
      const algorithm = ALGORITHMS[part.slice(0, at).trim().toLowerCase()]
      if (at < 0 || algorithm === undefined) continue
      const value = normaliseChecksum(algorithm, part.slice(at + 1).trim())
      if (value !== undefined) found[algorithm] = value
    }
  }
  return found
}

/** Lower-case hex of full length from hex (short adler32 padded with zeros) or base64 (`:...:` too); else `undefined`. */
export function normaliseChecksum(algorithm: ChecksumAlgorithm, value: string): string | undefined {
  const digits = BYTES[algorithm] * 2
  const structured = /^:([A-Za-z0-9+/]+={0,2}):$/.exec(value)?.[1]
  if (structured === undefined && /^[0-9a-fA-F]+$/.test(value)) {
    if (value.length === digits) return value.toLowerCase()
    if (algorithm === 'adler32' && value.length < digits) return value.toLowerCase().padStart(digits, '0')
  }
  const base64 = structured ?? (/^[A-Za-z0-9+/]+={1,2}$/.test(value) ? value : undefined)
  const bytes = base64 === undefined ? undefined : Buffer.from(base64, 'base64')
  return bytes?.length === BYTES[algorithm] ? bytes.toString('hex') : undefined
}

/** Compares without regard to case and leading zeros. A value that is no checksum of that kind equals nothing. */
export function sameChecksum(algorithm: ChecksumAlgorithm, one: string, other: string): boolean {
  const normal = normaliseChecksum(algorithm, one)
  return normal !== undefined && normal === normaliseChecksum(algorithm, other)
}

/** How long a storage may take to read `bytes` for a checksum: 15 s and 1 s per 20 MiB, at most 2 hours. Milliseconds. */
export function digestTimeout(bytes: number | undefined): number {
  return Math.min(15_000 + Math.ceil((bytes ?? 0) / (20 * 1024 * 1024)) * 1000, 2 * 3600 * 1000)
}
