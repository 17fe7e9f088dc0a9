import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { cpus, totalmem } from 'node:os'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { systemClock } from '../shared/runtime/clock.ts'
import { systemTerminal } from '../shared/runtime/terminal.ts'
import { markdown, number, type Report } from './harness.ts'

/** `npm run bench`: all benches, one after the other, and docs/benchmarks.md of what they found. */
const NAMES = ['store', 'claims', 'rules', 'api', 'copies', 'orchestration', 'open']
/** The goals of rules are stated for a million files; of the others the short form tells as much. */
const LONG = new Set(['rules'])
const PAGE = fileURLToPath(new URL('../../docs/benchmarks.md', import.meta.url))

/** A bench that fails before it has its report is told as failed, and the others run. */
async function run(name: string): Promise<{ section: string; met: boolean }> {
  const script = fileURLToPath(new URL(`${name}.js`, import.meta.url))
  const child = spawn(process.execPath, [script, ...(LONG.has(name) ? ['--long'] : [])], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  let report: Report | undefined
  child.on('message', message => {
    report = message as Report
  })
  const status = await new Promise(resolve => child.once('exit', resolve))
  if (report === undefined) return { section: `## bench:${name}\n\nFailed with status ${status}.\n\n`, met: false }
  return { section: markdown(report), met: status === 0 }
}

const began = systemClock.monotonic()
const results: { section: string; met: boolean }[] = []
for (const name of NAMES) {
  results.push(await run(name))
  // After each: who stops here keeps what there is.
  await writeFile(PAGE, pageOf(results.map(({ section }) => section)))
}
systemTerminal.out(`written: docs/benchmarks.md, after ${minutesSince(began)} minutes\n`)
process.exitCode = results.every(({ met }) => met) ? 0 : 1

function minutesSince(began: number): string {
  return number((systemClock.monotonic() - began) / 60_000)
}

function pageOf(sections: readonly string[]): string {
  const [cpu] = cpus()
  const missing = NAMES.slice(sections.length).map(name => `## bench:${name}\n\nNot run: it was stopped before.\n\n`)
  return `${`# Benchmarks

Written by \`npm run bench\` (${minutesSince(began)} minutes); one alone: \`npm run bench:NAME\`, with \`-- --long\` for the sizes that take long.
Everything ran on one machine: ${cpus().length} cores (${cpu?.model.trim()}), ${number(totalmem() / 2 ** 30)} GiB, Node ${process.version}.
Figures are medians, with the half of all that lies around them in brackets. Only ratios taken in one run can be compared
between machines.

${[...sections, ...missing].join('')}`.trimEnd()}\n`
}
