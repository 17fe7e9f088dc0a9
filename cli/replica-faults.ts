import { createReadStream } from 'node:fs'
import { stdin } from 'node:process'
import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import type { Answer, Call } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { addCommand, type Context, type Tools, UsageError } from './command.ts'
import { type Column, timeText } from './output.ts'
import { pages } from './pages.ts'
import { given } from './values.ts'

type Declaration = Call<Routes['declareReplicas']>['body']
type DeclaredFile = Answer<Routes['declareReplicas']>['results'][number]

/** As many as one request takes. */
const MOST = 5_000

const COLUMNS: readonly Column<DeclaredFile>[] = [
  { name: 'file', value: item => item.did ?? item.path },
  { name: 'outcome', value: item => item.outcome },
  { name: 'state', value: item => item.state },
  { name: 'message', value: item => item.message },
]

interface DeclareFlags {
  readonly rse: string
  readonly reason?: string
  readonly fromFile?: string
  readonly last?: true
}

/** What is said of replicas: that they are bad, lost or good, and whether they are kept. */
export function addFaultCommands(replica: Command, tools: Tools): void {
  const named = (command: Command): Command =>
    command
      .requiredOption('--rse <name>', 'the storage')
      .option('--from-file <path>', 'a DID or a path at the storage on each line; "-" reads standard input')
  const reasoned = (command: Command): Command => named(command).option('--reason <text>', 'for people')

  addCommand<DeclareFlags>(replica, tools, {
    usage: 'declare-bad [files...]',
    summary: 'say that what lies at a storage is not the file: it is deleted and copied anew, if somebody has it',
    options: command =>
      reasoned(command).option(
        '--last',
        'it may be deleted though it may be all that is left of the file; of what others have made who manages the scope may say so',
      ),
    examples: [
      'replica declare-bad exp:run1/a.root --rse SITE-B --reason "disk 7 died"',
      'replica declare-bad --rse SITE-B --from-file broken.txt',
    ],
    run: (context, files, flags) => declare(context, 'BAD', files, flags),
  })

  addCommand<DeclareFlags>(replica, tools, {
    usage: 'declare-lost [files...]',
    summary:
      'say that nothing lies at a storage where the catalogue has a replica: it is copied anew, if somebody has it',
    options: reasoned,
    examples: ['replica declare-lost /data/exp/run1/a.root --rse SITE-B'],
    run: (context, files, flags) => declare(context, 'LOST', files, flags),
  })

  addCommand<DeclareFlags>(replica, tools, {
    usage: 'declare-good [files...]',
    summary: 'say that it was a false alarm: a worker looks, and what is the file counts as AVAILABLE again',
    options: named,
    examples: ['replica declare-good exp:run1/a.root --rse SITE-B'],
    run: (context, files, flags) => declare(context, 'GOOD', files, flags),
  })

  addCommand<{ rse?: string }>(replica, tools, {
    usage: 'faults',
    summary: 'list replicas that are BAD or lost: why, since when, and who says so',
    options: command => command.option('--rse <name>', 'only at this storage'),
    examples: ['replica faults --rse SITE-B'],
    run: async ({ client, output }, _, { rse }) => {
      await output.list(
        pages(at => client.listFaults({ query: { ...given({ rse }), ...at } })),
        [
          { name: 'did', value: item => item.did },
          { name: 'rse', value: item => item.rse },
          { name: 'state', value: item => item.state },
          { name: 'locks', value: item => item.locks },
          { name: 'since', value: item => timeText(item.at) },
          { name: 'by', value: item => item.by },
          { name: 'code', value: item => item.code },
          { name: 'message', value: item => item.message },
          { name: 'stays', value: item => item.stays },
        ],
      )
    },
  })

  addCommand<{ rse: string }>(replica, tools, {
    usage: 'keep <did>',
    summary: 'keep the replicas of a file or dataset at a storage, whatever rules end',
    options: command => command.requiredOption('--rse <name>', 'the storage'),
    examples: ['replica keep exp:run1 --rse SITE-A'],
    run: ({ client, output }, [did = ''], { rse }) => keep({ client, output }, did, rse, true),
  })

  addCommand<{ rse: string }>(replica, tools, {
    usage: 'release <did>',
    summary:
      'let go of what was registered, imported or uploaded: what no rule holds is deleted there; of what others have made who manages the scope may do so',
    options: command => command.requiredOption('--rse <name>', 'the storage'),
    examples: ['replica release exp:run1 --rse SITE-A'],
    run: ({ client, output }, [did = ''], { rse }) => keep({ client, output }, did, rse, false),
  })
}

async function keep({ client, output }: Pick<Context, 'client' | 'output'>, did: string, rse: string, kept: boolean) {
  const answer = await client.keepReplicas({ body: { did, rse, kept } })
  output.done(`${answer.changed} replicas at ${rse} are ${kept ? 'kept' : 'let go of'}`, answer)
}

/** Throws DECLARATION_INCOMPLETE when something could not be declared, after all was tried. */
async function declare(
  { client, output }: Context,
  as: Declaration['as'],
  files: readonly string[],
  { rse, reason, fromFile, last }: DeclareFlags,
): Promise<void> {
  if (files.length === 0 && fromFile === undefined) throw new UsageError('which files? name them, or give --from-file')
  let failed = 0
  const answers = async function* () {
    for await (const chunk of chunksOf(files, fromFile)) {
      const body = { rse, as, files: chunk.map(named), ...given({ reason, last }) }
      const { results } = await client.declareReplicas({ body })
      failed += results.filter(({ outcome }) => outcome === 'REFUSED' || outcome === 'UNKNOWN').length
      yield results
    }
  }
  await output.list(answers(), COLUMNS)
  if (failed > 0) throw new WaybillError('DECLARATION_INCOMPLETE', `${failed} of them are as they were`)
}

function named(text: string): Declaration['files'][number] {
  return text.startsWith('/') ? { path: text } : { did: text }
}

/** What was named, a request's worth at a time. */
async function* chunksOf(files: readonly string[], fromFile: string | undefined): AsyncGenerator<string[]> {
  let chunk: string[] = []
  for await (const file of namedAll(files, fromFile)) {
    chunk.push(file)
    if (chunk.length < MOST) continue
    yield chunk
    chunk = []
  }
  if (chunk.length > 0) yield chunk
}

async function* namedAll(files: readonly string[], fromFile: string | undefined): AsyncGenerator<string> {
  yield* files
  if (fromFile === undefined) return
  const input = fromFile === '-' ? stdin : createReadStream(fromFile)
  for await (const line of createInterface({ input, crlfDelay: Infinity })) {
    if (line.trim() !== '') yield line.trim()
  }
}
