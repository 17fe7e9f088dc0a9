import type { ImportJob } from '../../shared/contract/routes/worker.ts'
import type { WorkOptions } from '../../worker/loop.ts'
import type { Storages } from '../../worker/storages.ts'
import type { Stage } from './stage.ts'
import type { ReportedFiles } from './stand-in-server.ts'

/** Imports of what lies at the first storage of a stage. */
export class ImportStage {
  readonly #stage: Stage

  constructor(stage: Stage) {
    this.#stage = stage
  }

  async job(below: string, more: Partial<ImportJob> = {}): Promise<ImportJob> {
    const stage = this.#stage
    const { source } = await stage.transfer('other/file', 'x')
    const storage = stage.server.storages.get('SITE-A')
    if (storage === undefined) throw new Error('no storage')
    const url = `${stage.storage('SITE-A').url}/data/exp/ds/${below}`
    const directories = [{ directory: 1, path: '' }]
    return {
      import: 5,
      fence: 3,
      url,
      grant: source.grant,
      storage,
      dataset: 'd',
      checksum: 'storage',
      summed: false,
      directories,
      ...more,
    }
  }

  /** All reports of an import, the last of which ends it. */
  async reportsOf(wanted: ImportJob): Promise<ReportedFiles[]> {
    const { server } = this.#stage
    server.enqueueImport(wanted)
    const open = new Set(wanted.directories.map(({ directory }) => directory))
    for (let seen = 0; ; ) {
      for (const { part, directories, listed, error } of server.imports.slice(seen)) {
        for (const i of directories.keys()) open.add(part * 10_000 + i)
        for (const directory of listed) open.delete(directory)
        if (open.size === 0 || error !== undefined) return server.imports
        seen += 1
      }
      await server.untilImport()
    }
  }

  /**
   * The worker's storages, of which each look and list is told before it is sent: its verb and the end of its address. What
   * `onRequest` throws is its answer.
   */
  watched(onRequest: (verb: 'HEAD' | 'PROPFIND', name: string) => unknown): Partial<WorkOptions> {
    const { storages } = this.#stage.options
    const client: Storages['client'] = (...given) => {
      const real = storages.client(...given)
      const tell = (verb: 'HEAD' | 'PROPFIND', url: string) => onRequest(verb, url.split('/ds/')[1] ?? '')
      return {
        ...real,
        head: async (url, ...rest) => {
          await tell('HEAD', url)
          return real.head(url, ...rest)
        },
        list: async (url, ...rest) => {
          await tell('PROPFIND', url)
          return real.list(url, ...rest)
        },
      }
    }
    return { storages: Object.create(storages, { client: { value: client } }) as Storages }
  }
}
