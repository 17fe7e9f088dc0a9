import { isDeepStrictEqual } from 'node:util'
import type { Command } from 'commander'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { IMPORT_STATES } from '../shared/domain/import-state.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import { onInterrupt } from '../shared/runtime/interrupt.ts'
import { addCommand, type Context, type Tools, UsageError } from './command.ts'
import { bytesText, type Column, timeText } from './output.ts'
import { pages } from './pages.ts'
import { given, oneOf } from './values.ts'
import { follow, ProgressLine } from './watch.ts'

type Import = Answer<Routes['getImport']>

const STATES = Object.keys(IMPORT_STATES) as (keyof typeof IMPORT_STATES)[]

const COLUMNS: readonly Column<Import>[] = [
  { name: 'id', value: item => item.id },
  { name: 'dataset', value: item => item.dataset },
  { name: 'rse', value: item => item.rse },
  { name: 'path', value: item => item.path },
  { name: 'state', value: item => item.state },
  { name: 'files', value: item => item.files },
  { name: 'size', value: item => bytesText(item.bytes) },
  { name: 'left out', value: item => item.leftOut },
  { name: 'directories left', value: item => item.directories.left },
  { name: 'error', value: item => item.error ?? '' },
]

interface AddFlags {
  readonly rse?: string
  readonly path?: string
  readonly did?: string
  readonly checksum: 'storage' | 'none'
  readonly wait: boolean
}

export function addImportCommands(program: Command, tools: Tools): void {
  const command = addCommand<AddFlags>(program, tools, {
    usage: 'import',
    summary: 'take over a directory tree that lies at a storage: its files become replicas and a dataset',
    options: it =>
      it
        // `import list --json` is the subcommand's.
        .enablePositionalOptions()
        .option('--rse <name>', 'the storage')
        .option('--path <path>', 'the directory at the storage, below its prefix')
        .option('--did <did>', 'the dataset that the files will be in')
        .option(
          '--checksum <source>',
          'storage: as it tells them; none: sizes alone',
          oneOf(['storage', 'none']),
          'storage',
        )
        .option('--no-wait', 'do not stay until it is over'),
    examples: [
      'import --rse SITE-A --path /data/exp/old/run1 --did exp:run1',
      'import list --state failed',
      'import show 17 --watch',
    ],
    run: async (context, _, { rse, path, did, checksum, wait }) => {
      if (rse === undefined || path === undefined || did === undefined) {
        throw new UsageError('what is imported, and as what? give --rse, --path and --did')
      }
      const job = await context.client.addImport({ body: { rse, path, dataset: did, checksum } })
      if (wait) return watchImport(context, job.id)
      context.output.one(job, fieldsOf)
    },
  })

  addCommand<{ state?: Import['state']; rse?: string }>(command, tools, {
    usage: 'list',
    summary: 'list imports',
    options: it =>
      it
        .option('--state <state>', 'only in this state', text => oneOf(STATES)(text.toUpperCase()))
        .option('--rse <name>', 'only at this storage'),
    examples: ['import list', 'import list --state listing'],
    run: async ({ client, output }, _, { state, rse }) => {
      const found = pages(at => client.listImports({ query: { ...given({ state, rse }), ...at } }))
      await output.list(found, COLUMNS)
    },
  })

  addCommand<{ watch?: true }>(command, tools, {
    usage: 'show <id>',
    summary: 'show an import with its progress',
    options: it => it.option('--watch', 'stay until it is over'),
    examples: ['import show 17', 'import show 17 --watch'],
    run: async (context, [id = ''], { watch }) => {
      if (watch === true) return watchImport(context, id)
      context.output.one(await context.client.getImport({ params: { id } }), fieldsOf)
    },
  })

  addCommand(command, tools, {
    usage: 'problems <id>',
    summary: 'list what an import found and did not take over, and why',
    examples: ['import problems 17', 'import problems 17 --json'],
    run: async ({ client, output }, [id = '']) => {
      await output.list(
        pages(at => client.listImportProblems({ params: { id }, query: at })),
        [
          { name: 'code', value: item => item.code },
          { name: 'path', value: item => JSON.stringify(item.path) },
          { name: 'why', value: item => item.message },
        ],
      )
    },
  })

  addCommand(command, tools, {
    usage: 'cancel <id>',
    summary: 'end an import: what it has registered stays',
    examples: ['import cancel 17'],
    run: async ({ client, output }, [id = '']) => {
      const job = await client.cancelImport({ params: { id } })
      output.done(`import ${job.id} is cancelled; ${job.files} files are registered`, job)
    },
  })

  addCommand<{ watch?: true }>(command, tools, {
    usage: 'resume <id>',
    summary: 'go on with an import that was refused or cancelled, where it was; one that waits tries its storage now',
    options: it => it.option('--watch', 'stay until it is over'),
    examples: ['import resume 17 --watch'],
    run: async (context, [id = ''], { watch }) => {
      const job = await context.client.resumeImport({ params: { id } })
      if (watch === true) return watchImport(context, id)
      context.output.done(`import ${job.id} goes on`, job)
    },
  })
}

/** Resolves when all was taken over; throws `IMPORT_FAILED`, `IMPORT_CANCELLED`, or `IMPORT_INCOMPLETE` when something was left out. */
async function watchImport({ client, output, clock, terminal }: Context, id: number | string): Promise<void> {
  const line = new ProgressLine(terminal, clock)
  const rate = new Rate(clock)
  let shown: Import | undefined
  const takeBack = onInterrupt(() => {
    line.end()
    terminal.err(`import ${id} goes on: waybill import show ${id} --watch\n`)
  })
  const job = await follow({
    read: () => client.getImport({ params: { id } }),
    isDone: ({ state }) => state !== 'QUEUED' && state !== 'LISTING',
    clock,
    onProgress: found => {
      const filesPerSecond = rate.of(found.files)
      if (!output.json) line.show(progressText(found, filesPerSecond))
      else if (!isDeepStrictEqual(found, shown)) output.one({ ...found, filesPerSecond })
      shown = found
    },
  }).finally(() => {
    takeBack()
    line.end()
  })
  if (!output.json) output.one(job, fieldsOf)
  const { state, leftOut, error } = job
  if (state === 'DONE' && leftOut === 0) return
  if (state === 'DONE') {
    const sentence = `import ${id} has left out ${leftOut} that it found: waybill import problems ${id} tells which, and why`
    throw new WaybillError('IMPORT_INCOMPLETE', sentence)
  }
  const goOn = `waybill import resume ${id} goes on where it was`
  if (state === 'CANCELLED') throw new WaybillError('IMPORT_CANCELLED', `import ${id} was cancelled; ${goOn}`)
  throw new WaybillError(
    'IMPORT_FAILED',
    `import ${id} failed: ${error ?? 'no reason was given'}; when that is mended, ${goOn}`,
  )
}

/** Between two figures, so that a rate is of the last half minute or so. Milliseconds. */
const RATE_MS = 30_000

/** How quickly a number grows, by the second. */
class Rate {
  readonly #clock: Clock
  readonly #seen: { readonly at: number; readonly count: number }[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  of(count: number): number {
    const at = this.#clock.monotonic()
    this.#seen.push({ at, count })
    while (this.#seen.length > 2 && at - (this.#seen[1]?.at ?? at) >= RATE_MS) this.#seen.shift()
    const first = this.#seen[0] ?? { at, count }
    return at === first.at ? 0 : Math.round(((count - first.count) * 10_000) / (at - first.at)) / 10
  }
}

function progressText(job: Import, filesPerSecond: number): string {
  const { id, state, files, bytes, leftOut, directories, error, retryAt } = job
  const parts = [
    `${files} files`,
    bytesText(bytes),
    `${filesPerSecond} files/s`,
    `${directories.left} directories left`,
  ]
  if (leftOut > 0) parts.push(`${leftOut} left out`)
  const waits = retryAt === undefined ? '' : `; tried again at ${timeText(retryAt)}`
  return `import ${id} ${state}: ${parts.join(', ')}${error === undefined ? '' : `; ${error}`}${waits}`
}

function fieldsOf({ bytes, directories, retryAt, createdAt, updatedAt, ...job }: Import) {
  return {
    ...job,
    bytes: bytesText(bytes),
    directories: `${directories.listed} listed, ${directories.left} left`,
    retryAt: timeText(retryAt),
    createdAt: timeText(createdAt),
    updatedAt: timeText(updatedAt),
  }
}
