import { systemClock } from '../../shared/runtime/clock.ts'

/** Looks again until what is found satisfies, for things that only the API can tell. Throws with what was found last. */
export async function until<T>(
  look: () => Promise<T>,
  satisfied: (found: T) => boolean,
  withinMs = 45_000,
): Promise<T> {
  const deadline = systemClock.monotonic() + withinMs
  for (;;) {
    const found = await look()
    if (satisfied(found)) return found
    if (systemClock.monotonic() > deadline) throw new Error(`not within ${withinMs} ms: ${JSON.stringify(found)}`)
    await systemClock.sleep(50)
  }
}
