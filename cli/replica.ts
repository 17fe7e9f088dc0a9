import { createReadStream } from 'node:fs'
import { stdin } from 'node:process'
import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import type { Call } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { addCommand, type Tools, UsageError } from './command.ts'
import { bytesText, timeText } from './output.ts'
import { pages } from './pages.ts'
import { addFaultCommands } from './replica-faults.ts'
import { given } from './values.ts'

type RegisteredFile = Call<Routes['registerReplicas']>['body']['files'][number]

/** As many as one request takes. */
const MOST = 10_000
const STATES = ['AVAILABLE', 'UNAVAILABLE', 'COPYING', 'BEING_DELETED', 'BAD', 'TEMPORARY_UNAVAILABLE'] as const

export function addReplicaCommands(program: Command, tools: Tools): void {
  const replica = program.command('replica').description('where files lie')

  addCommand<{ rse?: string; state?: string }>(replica, tools, {
    usage: 'list <did>',
    summary: 'list the replicas of a file, or of the files of a dataset',
    options: command =>
      command.option('--rse <name>', 'only at this storage').option('--state <state>', 'only in this state'),
    examples: ['replica list exp:run1 --rse SITE-B', 'replica list exp:run1 --state available'],
    run: async ({ client, output }, [did = ''], { rse, state }) => {
      const known = STATES.find(name => name === state?.toUpperCase())
      if (state !== undefined && known === undefined) throw new UsageError(`${state} is none of ${STATES.join(', ')}`)
      await output.list(
        pages(at => client.listReplicas({ query: { did, ...given({ rse, state: known }), ...at } })),
        [
          { name: 'did', value: item => item.did },
          { name: 'rse', value: item => item.rse },
          { name: 'state', value: item => item.state },
          { name: 'size', value: item => bytesText(item.bytes) },
          { name: 'locks', value: item => item.locks },
          { name: 'url', value: item => item.url },
          { name: 'fault', value: item => item.fault },
          { name: 'since', value: item => timeText(item.faultAt) },
          { name: 'by', value: item => item.faultBy },
          { name: 'unwanted since', value: item => timeText(item.tombstoneAt) },
          { name: 'stays', value: item => item.stays },
        ],
      )
    },
  })

  addCommand<{ rse: string; dataset?: string }>(replica, tools, {
    usage: 'register <file>',
    summary: 'register files that lie at a storage',
    options: command =>
      command
        .requiredOption('--rse <name>', 'the storage they lie at')
        .option('--dataset <did>', 'attach them to it; made if it is not there')
        .addHelpText(
          'after',
          '\n<file> has one JSON object a line: {"did": "exp:a", "bytes": 17, "adler32": "03da0195", "path": "/data/exp/run1/a"};\nadler32, md5 and path may be absent. "-" reads standard input.',
        ),
    examples: ['replica register --rse SITE-A --dataset exp:run1 files.ndjson'],
    run: async ({ client, output }, [file = ''], { rse, dataset }) => {
      const total = { files: 0, created: 0, attached: 0 }
      for await (const files of linesOf(file)) {
        const answer = await client.registerReplicas({ body: { rse, files, ...given({ dataset }) } })
        total.files += answer.files
        total.created += answer.created
        total.attached += answer.attached
      }
      output.done(`${total.files} replicas at ${rse} (${total.created} new files, ${total.attached} attached)`, total)
    },
  })

  addFaultCommands(replica, tools)
}

/** The file's objects, a request's worth at a time. The server checks what they are. */
async function* linesOf(file: string): AsyncGenerator<RegisteredFile[]> {
  const lines = createInterface({ input: file === '-' ? stdin : createReadStream(file), crlfDelay: Infinity })
  let batch: RegisteredFile[] = []
  let number = 0
  for await (const line of lines) {
    number += 1
    if (line.trim() === '') continue
    batch.push(parse(line, file, number))
    if (batch.length < MOST) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}

function parse(line: string, file: string, number: number): RegisteredFile {
  try {
    return JSON.parse(line) as RegisteredFile
  } catch {
    throw new UsageError(`${file}, line ${number}: not a JSON object`)
  }
}
