import { type Behaviour, PLAYED, type Played, type RunningStorage, WELL_BEHAVED } from '../../sandbox/main.ts'

export const FLAVOURS = ['xrootd5', 'xrootd6', 'eos', 'dcache', 'storm'] as const satisfies readonly Played[]

/** Where tests have no time to be true to life. */
const HURRIED: Partial<Behaviour> = { markerSeconds: 0.1 }

/** From now on the storage plays this one, and nothing that it was told before. */
export function play({ behaviour }: RunningStorage, played: Played, more: Partial<Behaviour> = {}): void {
  Object.assign(behaviour, WELL_BEHAVED, PLAYED[played], HURRIED, more)
}
