import type { Clock } from '../../shared/runtime/clock.ts'
import type { Random } from '../../shared/runtime/random.ts'
import type { FileTree } from './file-tree.ts'
import { type Locality, TapeCopies } from './tape-copies.ts'
import { TapeRecalls } from './tape-recalls.ts'
import { PATIENT_TAPE, type TapeSettings } from './tape-settings.ts'

/** The tape system behind a storage. It keeps all in memory: after a restart every file is a new one on disk. */
export class TapeFront {
  /** May be changed while the storage runs. */
  readonly settings: TapeSettings
  readonly copies: TapeCopies
  readonly recalls: TapeRecalls

  constructor(files: FileTree, settings: Partial<TapeSettings>, clock: Clock, random: Random) {
    this.settings = { ...PATIENT_TAPE, ...settings }
    this.copies = new TapeCopies(files, this.settings, clock)
    this.recalls = new TapeRecalls(this.copies, this.settings, clock, random)
  }

  /** Where the file at `path` (`/data/f`) is; undefined when there is none. */
  locality(path: string): Promise<Locality | undefined> {
    return this.copies.locality(path.split('/').filter(Boolean))
  }

  /** Takes a file from disk, as a full storage does. False when it is pinned, when it isn't on tape, or when there is none. */
  evict(path: string): Promise<boolean> {
    return this.copies.evict(path.split('/').filter(Boolean))
  }
}
