import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { environment } from '../shared/runtime/environment.ts'
import { systemTerminal } from '../shared/runtime/terminal.ts'
import { isWanted } from './interop/components.ts'
import type { Counts } from './reporter.ts'

const ON_POSTGRESQL = [
  'dist/test/api/*.test.js',
  'dist/test/faults/{crash,secrets}.test.js',
  'dist/test/interop/rule-xrootd.test.js',
]
/** `npm test`: everything, and what has the whole of Waybill under test once more with its server on PostgreSQL. */
const RUNS = [
  { database: 'sqlite', files: ['dist/test/**/*.test.js'] },
  ...(isWanted('postgresql') ? [{ database: 'postgresql', files: ON_POSTGRESQL }] : []),
]

const MOCHA = fileURLToPath(new URL('../../node_modules/mocha/bin/mocha.js', import.meta.url))

async function run({ database, files }: (typeof RUNS)[number]): Promise<Counts> {
  systemTerminal.out(`\nThe rules server's database: ${database}\n`)
  const child = spawn(process.execPath, [MOCHA, ...files], {
    env: { ...environment, TEST_DATABASE: database },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  let counts: Counts | undefined
  child.on('message', message => {
    counts = message as Counts
  })
  const status = await new Promise(resolve => child.once('exit', resolve))
  if (counts === undefined || (status === 0) !== (counts.failed === 0)) {
    throw new Error(`the tests on ${database} ended with status ${status} and without their counts`)
  }
  return counts
}

const total = { passed: 0, failed: 0, skipped: 0 }
for (const one of RUNS) {
  const { passed, failed, skipped } = await run(one)
  total.passed += passed
  total.failed += failed
  total.skipped += skipped
}
process.exitCode = total.failed === 0 ? 0 : 1
systemTerminal.out(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`)
