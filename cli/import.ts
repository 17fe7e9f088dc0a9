import type { Command } from 'commander'
import { WaybillError } from '../shared/domain/errors.ts'
import { addCommand, type Tools } from './command.ts'
import { bytesText } from './output.ts'
import { ProgressLine } from './watch.ts'

const INTERVAL_MS = 1000

export function addImportCommand(program: Command, tools: Tools): void {
  addCommand<{ rse: string; path: string; did: string; wait: boolean }>(program, tools, {
    usage: 'import',
    summary: 'take over a directory tree that lies at a storage: its files become replicas and a dataset',
    options: command =>
      command
        .requiredOption('--rse <name>', 'the storage')
        .requiredOption('--path <path>', 'the directory at the storage, below its prefix')
        .requiredOption('--did <did>', 'the dataset that the files will be in')
        .option('--no-wait', 'do not wait until it is listed'),
    examples: ['import --rse SITE-A --path /data/exp/old/run1 --did exp:run1'],
    run: async ({ client, output, clock, terminal }, _, { rse, path, did, wait }) => {
      let job = await client.addImport({ body: { rse, path, dataset: did } })
      const line = new ProgressLine(terminal, clock)
      while (wait && (job.state === 'QUEUED' || job.state === 'LISTING')) {
        line.show(`import ${job.id} ${job.state}: ${job.files} files, ${bytesText(job.bytes)}`)
        await clock.sleep(INTERVAL_MS)
        job = await client.getImport({ params: { id: job.id } })
      }
      line.end()
      output.one(job)
      if (job.state === 'FAILED') {
        throw new WaybillError('IMPORT_FAILED', `import ${job.id} failed: ${job.error ?? 'no reason was given'}`)
      }
      if (job.error !== undefined) throw new WaybillError('IMPORT_INCOMPLETE', `import ${job.id}: ${job.error}`)
    },
  })
}
