import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { environment } from '../shared/runtime/environment.ts'
import { systemTerminal } from '../shared/runtime/terminal.ts'
import { isWanted } from './interop/components.ts'
import type { Counts } from './reporter.ts'

interface Run {
  readonly what: string
  readonly files: readonly string[]
  /** Of the rules servers that the tests start. */
  readonly database: 'sqlite' | 'postgresql'
}

/**
 * `npm test`: everything, and what has the whole of Waybill under test once more with its server on PostgreSQL. Three processes
 * at a time, since most of a test is waiting.
 */
const RUNS: readonly Run[] = [
  {
    what: 'the whole, on SQLite',
    files: ['dist/test/{api,worker,interop,faults}/*.test.js'],
    database: 'sqlite',
  },
  {
    what: 'the parts, and the store on each database',
    files: ['dist/test/{unit,store}/**/*.test.js'],
    database: 'sqlite',
  },
  {
    what: 'the whole, on PostgreSQL',
    files: [
      'dist/test/api/*.test.js',
      'dist/test/faults/{crash,secrets}.test.js',
      'dist/test/interop/rule-xrootd.test.js',
    ],
    database: 'postgresql',
  },
]

const MOCHA = fileURLToPath(new URL('../../node_modules/mocha/bin/mocha.js', import.meta.url))

/** What it prints is told when it has ended, so that the runs stand one after the other. */
async function run({ what, files, database }: Run): Promise<Counts> {
  const child = spawn(process.execPath, [MOCHA, ...files], {
    env: { ...environment, TEST_DATABASE: database },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  const printed: Buffer[] = []
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => printed.push(chunk))
  let counts: Counts | undefined
  child.on('message', message => {
    counts = message as Counts
  })
  const status = await new Promise(resolve => child.once('close', resolve))
  systemTerminal.out(`\n=== ${what}\n${Buffer.concat(printed).toString()}`)
  if (counts === undefined || (status === 0) !== (counts.failed === 0)) {
    throw new Error(`the tests of ${what} ended with status ${status} and without their counts`)
  }
  return counts
}

const wanted = RUNS.filter(({ database }) => database === 'sqlite' || isWanted('postgresql'))
systemTerminal.out(`tests: ${wanted.map(({ what }) => what).join('; ')}. Each tells what it found when it has ended.\n`)
const counted = await Promise.all(wanted.map(run))
for (const failure of counted.flatMap(({ failures }) => failures)) systemTerminal.out(`\nfailed: ${failure}\n`)
const sum = (key: 'passed' | 'failed' | 'skipped'): number => counted.reduce((total, counts) => total + counts[key], 0)
process.exitCode = sum('failed') === 0 ? 0 : 1
systemTerminal.out(`\n${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped\n`)
