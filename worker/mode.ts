import type { Clock } from '../shared/runtime/clock.ts'

/** pull: the destination fetches. push: the source sends. stream: the bytes pass through the worker. */
export type Mode = 'pull' | 'push' | 'stream'

/** Those that a storage may lack; every one has GET and PUT, so a stream is always left. */
export type ThirdPartyMode = Exclude<Mode, 'stream'>

/** The first mode that both storages can do, beginning with the preferred one: facts/transfers.md, Mode. */
export function chooseMode(
  source: { readonly canPush: boolean },
  destination: { readonly canPull: boolean },
  unsupported: ReadonlySet<ThirdPartyMode>,
  preferred: ThirdPartyMode = 'pull',
): Mode {
  const able: Readonly<Record<ThirdPartyMode, boolean>> = { pull: destination.canPull, push: source.canPush }
  const order: readonly ThirdPartyMode[] = preferred === 'pull' ? ['pull', 'push'] : ['push', 'pull']
  return order.find(mode => able[mode] && !unsupported.has(mode)) ?? 'stream'
}

/** A storage may learn a mode by an upgrade: it is tried again after so long. */
const REMEMBER_MS = 600_000

/** Which modes two storages turned out not to support together, so that the next transfers need not try. */
export class ModeMemory {
  readonly #clock: Clock
  /** By pair and mode: until when, on the monotonic clock. Bounded by the number of links. */
  readonly #until = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** A copy, which the attempt adds to. */
  unsupported(source: string, destination: string): Set<ThirdPartyMode> {
    const modes: ThirdPartyMode[] = ['pull', 'push']
    const now = this.#clock.monotonic()
    return new Set(modes.filter(mode => (this.#until.get(keyOf(source, destination, mode)) ?? 0) > now))
  }

  remember(source: string, destination: string, mode: ThirdPartyMode): void {
    this.#until.set(keyOf(source, destination, mode), this.#clock.monotonic() + REMEMBER_MS)
  }
}

function keyOf(source: string, destination: string, mode: ThirdPartyMode): string {
  return `${source} ${destination} ${mode}`
}
