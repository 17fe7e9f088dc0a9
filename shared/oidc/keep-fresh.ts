import type { Clock } from '../runtime/clock.ts'

export interface KeepFreshOptions<T> {
  load: () => Promise<T>
  clock: Clock
  /** From this age on (ms) a value is loaded anew, behind the back of whoever asks. */
  refreshAfterMs: number
  /** Up to this age (ms) a value is still given out when loading fails. */
  staleForMs: number
  /** After a failed load nobody tries again for so long (ms). */
  retryAfterMs: number
}

export interface Fresh<T> {
  /** The value: at once while there is a usable one, else as soon as it is loaded. Rejects with the error of the load. */
  get(): Promise<T>
  /** Loads now and gives the new value, unless a load has just failed: then it rejects with that error. */
  renew(): Promise<T>
}

/**
 * Keeps one loaded value fresh: a single load at a time, stale values through an outage, failures remembered, so that an
 * issuer in trouble is not asked by every request of ours (jose's remote key set made 20 fetches for 20 verifications during
 * an outage: facts/tokens.md section 2).
 */
export function keepFresh<T>(options: KeepFreshOptions<T>): Fresh<T> {
  const { load, clock, refreshAfterMs, staleForMs, retryAfterMs } = options
  let current: { value: T; loadedAt: number } | undefined
  let failure: { error: unknown; at: number } | undefined
  let loading: Promise<T> | undefined

  async function loadOnce(): Promise<T> {
    try {
      const value = await load()
      current = { value, loadedAt: clock.monotonic() }
      failure = undefined
      return value
    } catch (error) {
      failure = { error, at: clock.monotonic() }
      throw error
    }
  }

  function renew(): Promise<T> {
    if (loading) return loading
    if (failure && clock.monotonic() - failure.at < retryAfterMs) return Promise.reject(failure.error)
    loading = loadOnce().finally(() => {
      loading = undefined
    })
    return loading
  }

  return {
    renew,
    async get() {
      const age = current ? clock.monotonic() - current.loadedAt : Number.POSITIVE_INFINITY
      if (!current || age >= staleForMs) return renew()
      if (age >= refreshAfterMs) renew().catch(() => undefined) // remembered in `failure`; the stale value serves
      return current.value
    },
  }
}
