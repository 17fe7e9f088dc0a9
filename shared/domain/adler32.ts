/** Largest number of bytes before the sums must be reduced to stay exact in 32 bits (zlib's NMAX). */
const BLOCK = 5552
const BASE = 65521

/** adler32 (RFC 1950 section 9) of `bytes` that follow what `previous` is the sum of. An unsigned 32 bit number. */
export function adler32(bytes: Uint8Array, previous = 1): number {
  let a = previous & 0xffff
  let b = previous >>> 16
  for (let start = 0; start < bytes.length; start += BLOCK) {
    const end = Math.min(start + BLOCK, bytes.length)
    for (let i = start; i < end; i++) {
      a += bytes[i] as number
      b += a
    }
    a %= BASE
    b %= BASE
  }
  return ((b << 16) | a) >>> 0
}

/** As storages and catalogues write it: 8 lower-case hex digits. */
export function adler32Hex(sum: number): string {
  return sum.toString(16).padStart(8, '0')
}
