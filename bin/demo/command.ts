import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { firstPort, wholeNumber } from '../../cli/values.ts'
import { type PlayFlags, playOptions } from '../playing.ts'
import { runDemo } from './demo.ts'
import { DATASETS } from './story.ts'

interface DemoFlags extends PlayFlags {
  readonly dir?: string
  readonly exit?: true
  readonly files: number
  readonly portBase: number
  readonly json?: true
}

/** A file for each dataset. */
function filesOfDemo(text: string): number {
  const files = wholeNumber(text)
  if (files < DATASETS.length) throw new InvalidArgumentError(`${DATASETS.length} at least: one for each dataset`)
  return files
}

export function addDemoCommand(program: Command): void {
  const command = program
    .command('demo')
    .description('run everything on this machine: issuer, three storages, server and worker; move files by a rule')
    .option('--dir <directory>', 'where everything of it lives; kept, and used again. Default: a temporary one')
    .option('--exit', 'end when the rule is OK; exit status 0 only if every replica was verified')
    .option('--files <n>', `how many files, ${DATASETS.length} at least`, filesOfDemo, 200)
    .option('--json', 'the summary as JSON; what is told meanwhile goes to standard error')
    .option('--port-base <n>', 'first of seven ports; 0 takes free ones', firstPort, 0)
  playOptions(command)
    .addHelpText(
      'after',
      '\nExamples:\n  $ waybill demo\n  $ waybill demo --exit --dir waybill-demo --files 1000\n  $ waybill demo --play SITE-B=storm --tape SITE-A --refuse SITE-C=COPY:429:20:30',
    )
    .action(async () => {
      const { dir, exit, files, portBase, json, ...plays } = command.opts<DemoFlags>()
      const directory = dir ?? (await mkdtemp(join(tmpdir(), 'waybill-demo-')))
      await runDemo({ directory, exit: exit === true, files, portBase, json: json === true, plays })
      // Only after a good end: after a bad one its logs say why.
      if (dir === undefined) await rm(directory, { recursive: true })
    })
}
