import type { ClaimedTransfer, WorkerStorage } from '../shared/contract/routes/worker.ts'
import { sameChecksum } from '../shared/storage/digest.ts'
import type { ChecksumAlgorithm, Checksums, FileStatus } from '../shared/storage/types.ts'

/** What the catalogue knows of a file. */
export function knownChecksums({ adler32, md5 }: Pick<ClaimedTransfer, 'adler32' | 'md5'>): Checksums {
  return { ...(adler32 === undefined ? {} : { adler32 }), ...(md5 === undefined ? {} : { md5 }) }
}

/**
 * With the sums of what passed through the worker: they stand for what the catalogue does not know. The catalogue's values win, so
 * where one of them contradicts, what passed was another file.
 */
export function withPassed(known: Checksums, passed: Checksums): Checksums {
  const agrees = ALGORITHMS.every(algorithm => {
    const [one, other] = [known[algorithm], passed[algorithm]]
    return one === undefined || other === undefined || sameChecksum(algorithm, one, other)
  })
  return agrees ? { ...passed, ...known } : known
}

/** Whether a storage's policy wants what it gives, or what it took, compared with the catalogue. */
export function checks(
  { checksumPolicy }: Pick<WorkerStorage, 'checksumPolicy'>,
  as: 'source' | 'destination',
): boolean {
  return checksumPolicy === as || checksumPolicy === 'both'
}

/** What the catalogue says of a file; without a checksum there, the source's own one. */
export interface ExpectedFile {
  readonly bytes: number
  readonly checksums: Checksums
}

/**
 * What lies at an address. `unproven`: the size is right, but no checksum that the storage tells can be compared.
 * `size` and `checksums` are there to see whether the file still changes.
 */
export type Sight =
  | { readonly kind: 'absent' }
  | { readonly kind: 'right' }
  | { readonly kind: 'unproven'; readonly size: number | undefined; readonly checksums: Checksums }
  | {
      readonly kind: 'wrong'
      readonly code: 'SIZE_MISMATCH' | 'CHECKSUM_MISMATCH'
      readonly message: string
      readonly size: number | undefined
      readonly checksums: Checksums
    }

/** Whose file it is, for the words. */
type Who = 'source' | 'destination'

const ALGORITHMS = ['adler32', 'md5'] as const

/**
 * A file is right when its size and every checksum known of both agree, and at least one is. A storage that tells no size
 * (a HEAD without Content-Length) is judged by the checksum.
 */
export function judge(expected: ExpectedFile, found: FileStatus, who: Who = 'destination'): Sight {
  if (!found.exists) return { kind: 'absent' }
  const { size, checksums } = found
  if (size !== undefined && size !== expected.bytes) {
    const message = `the ${who} has ${size} bytes, expected were ${expected.bytes}`
    return { kind: 'wrong', code: 'SIZE_MISMATCH', message, size, checksums }
  }
  let compared = false
  for (const algorithm of ALGORITHMS) {
    const wanted = expected.checksums[algorithm]
    const given = checksums[algorithm]
    if (wanted === undefined || given === undefined) continue
    if (!sameChecksum(algorithm, wanted, given)) {
      const message = `the ${who} has ${algorithm} ${given}, expected was ${wanted}`
      return { kind: 'wrong', code: 'CHECKSUM_MISMATCH', message, size, checksums }
    }
    compared = true
  }
  return compared ? { kind: 'right' } : { kind: 'unproven', size, checksums }
}

/**
 * Which checksums to ask the destination for, one after the other until one can be compared: the storage's own kind first,
 * if the catalogue has it.
 */
export function digestsToAsk(known: Checksums, preferred: ChecksumAlgorithm): ChecksumAlgorithm[] {
  const usable = ALGORITHMS.filter(algorithm => known[algorithm] !== undefined)
  return usable.includes(preferred) ? [preferred, ...usable.filter(algorithm => algorithm !== preferred)] : usable
}

/** Looks, and judges. `look` is a HEAD that asks for a checksum. Throws what it throws. */
export async function inspect(
  expected: ExpectedFile,
  preferred: ChecksumAlgorithm,
  who: Who,
  look: (wantDigest: ChecksumAlgorithm) => Promise<FileStatus>,
): Promise<Sight> {
  const [first = preferred, ...others] = digestsToAsk(expected.checksums, preferred)
  let sight = judge(expected, await look(first), who)
  for (const algorithm of others) {
    if (sight.kind !== 'unproven') break
    sight = judge(expected, await look(algorithm), who)
  }
  return sight
}

/** Where only the size is to be compared. */
export function judgeSize({ bytes }: ExpectedFile, found: FileStatus): Sight {
  const sight = judge({ bytes, checksums: {} }, found)
  return sight.kind === 'unproven' && sight.size !== undefined ? { kind: 'right' } : sight
}
