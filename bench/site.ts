import { readFile, writeFile } from 'node:fs/promises'
import process from 'node:process'
import type { Database } from '../server/database/database.ts'
import { Apart } from '../test/faults/apart.ts'
import { type House, startHouse } from '../test/house/house.ts'
import { World } from '../test/store/world.ts'
import type { BenchDatabase } from './databases.ts'

/** A rules server in a process of its own, asked over https with tokens of the embedded issuer; storages SITE-A and SITE-B. */
export interface Site {
  readonly house: House
  /** The database of the server, past it. */
  readonly world: World
  readonly db: Database
  /** Of the server, MiB, since the last `forgetPeak`: resident. */
  peakMemory(): Promise<number>
  forgetPeak(): Promise<void>
  stop(): Promise<void>
}

export async function startSite(database: BenchDatabase): Promise<Site> {
  const apart = new Apart()
  // A bench that fails leaves no server behind.
  const endServer = (): void => {
    const pid = apart.pid('server')
    if (pid !== undefined) process.kill(pid, 'SIGKILL')
  }
  process.once('exit', endServer)
  const house = await startHouse({ launch: apart, database: directory => database.house(directory) })
  await house.addStorages()
  const db = house.database.open()
  const place = (file: string): string => `/proc/${apart.pid('server')}/${file}`
  return {
    house,
    db,
    world: await World.of(db),
    async peakMemory() {
      const [, kilobytes] = /VmHWM:\s+(\d+) kB/.exec(await readFile(place('status'), 'utf8')) ?? []
      if (kilobytes === undefined) throw new Error('the system does not say how much memory a process had')
      return Number(kilobytes) / 1024
    },
    // proc(5): 5 sets the peak to what is resident now.
    forgetPeak: () => writeFile(place('clear_refs'), '5'),
    async stop() {
      await db.close()
      await house.stop()
      process.off('exit', endServer)
    },
  }
}
