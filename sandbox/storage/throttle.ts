import type { Clock } from '../../shared/runtime/clock.ts'

/** The same bytes, no faster than `bytesPerSecond`: for storages that play slow. */
export async function* throttled(
  chunks: AsyncIterable<Uint8Array>,
  bytesPerSecond: number,
  clock: Clock,
): AsyncGenerator<Uint8Array> {
  const slice = Math.max(1, Math.floor(bytesPerSecond / 10))
  for await (const chunk of chunks) {
    for (let start = 0; start < chunk.length; start += slice) {
      const part = chunk.subarray(start, start + slice)
      await clock.sleep((part.length / bytesPerSecond) * 1000)
      yield part
    }
  }
}
