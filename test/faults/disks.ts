import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { onDisk } from '../house/dataset.ts'
import type { House } from '../house/house.ts'

/** A file of a dataset at a storage. */
export interface Spot {
  readonly rse: string
  readonly dataset: string
  readonly name: string
}

export interface Found {
  readonly content: Buffer
  /** Another one: another file, or written to since. */
  readonly version: string
}

const keyOf = ({ rse, dataset, name }: Spot): string => `${rse} ${dataset}/${name}`

/** What a test knows of what lies, or ought to lie, on the disks of the storages. */
export class Disks {
  readonly #house: Pick<House, 'sandbox'>
  readonly #contents = new Map<string, Buffer>()
  readonly #foreign = new Map<string, { spot: Spot; version: string }>()
  readonly #spoilt = new Set<string>()

  constructor(house: Pick<House, 'sandbox'>) {
    this.#house = house
  }

  expect(dataset: string, name: string, content: Buffer): void {
    this.#contents.set(`${dataset}/${name}`, content)
  }

  /** What the catalogue's file must be. */
  contentOf(didName: string): Buffer | undefined {
    return this.#contents.get(didName)
  }

  async find(spot: Spot): Promise<Found | undefined> {
    const path = this.#path(spot)
    try {
      const { ino, mtimeMs, size } = await stat(path)
      return { content: await readFile(path), version: `${ino} ${mtimeMs} ${size}` }
    } catch {
      return undefined
    }
  }

  /** Somebody else's file comes to lie there, unless there is one. */
  async putForeign(spot: Spot, content: Buffer): Promise<void> {
    const path = this.#path(spot)
    if ((await this.find(spot)) !== undefined) return
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, content, { flag: 'wx' })
    const found = await this.find(spot)
    if (found !== undefined) this.#foreign.set(keyOf(spot), { spot, version: found.version })
  }

  /** A file is lost, or its bytes change, without a word to the catalogue. */
  async spoil(spot: Spot, change: (content: Buffer) => Buffer | undefined): Promise<void> {
    const found = await this.find(spot)
    if (found === undefined || this.#foreign.has(keyOf(spot))) return
    this.#spoilt.add(keyOf(spot))
    const changed = change(found.content)
    await (changed === undefined ? rm(this.#path(spot)) : writeFile(this.#path(spot), changed))
  }

  isSpoilt(spot: Spot): boolean {
    return this.#spoilt.has(keyOf(spot))
  }

  /** Whether a copy of this dataset may be impossible: a file in the way, or a source that is none any more. */
  isHopeless(dataset: string): boolean {
    return [...this.#spoilt, ...this.#foreign.keys()].some(key => key.includes(` ${dataset}/`))
  }

  /** Foreign files that are not as they were. */
  async wronged(): Promise<string[]> {
    const wronged: string[] = []
    for (const [key, { spot, version }] of this.#foreign) {
      const found = await this.find(spot)
      if (found?.version !== version) wronged.push(`somebody else's file was ${found ? 'changed' : 'removed'}: ${key}`)
    }
    return wronged
  }

  #path({ rse, dataset, name }: Spot): string {
    return onDisk(this.#house, rse, dataset, name)
  }
}
