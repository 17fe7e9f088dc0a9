import { createHash } from 'node:crypto'
import { Transform, type TransformCallback } from 'node:stream'
import { adler32, adler32Hex } from '../domain/adler32.ts'
import { transferFailure } from './classify.ts'
import { type Checksums, StorageError } from './types.ts'

/** Passes bytes on, counts and sums them. Fails with `SIZE_MISMATCH` unless exactly `size` bytes pass. */
export class Meter extends Transform {
  readonly #size: number
  readonly #onBytes: (bytes: number) => void
  readonly #md5 = createHash('md5')
  #adler32 = 1
  #bytes = 0

  constructor(size: number, onBytes: (bytes: number) => void) {
    super()
    this.#size = size
    this.#onBytes = onBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Once, after the end. */
  checksums(): Checksums {
    return { adler32: adler32Hex(this.#adler32), md5: this.#md5.digest('hex') }
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#bytes += chunk.length
    if (this.#bytes > this.#size) {
      done(this.#mismatch('more than'))
      return
    }
    this.#adler32 = adler32(chunk, this.#adler32)
    this.#md5.update(chunk)
    this.#onBytes(this.#bytes)
    done(null, chunk)
  }

  override _flush(done: TransformCallback): void {
    if (this.#bytes < this.#size) done(this.#mismatch(`only ${this.#bytes} of`))
    else done()
  }

  #mismatch(amount: string): StorageError {
    const words = `the source gave ${amount} the ${this.#size} bytes that were announced`
    return new StorageError(transferFailure('SIZE_MISMATCH', 'SOURCE', 'TRANSFER', words))
  }
}
