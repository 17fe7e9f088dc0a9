import { readFile, writeFile } from 'node:fs/promises'
import process from 'node:process'
import { openApiDocument } from '../shared/contract/openapi.ts'
import { GRANT_MACHINE } from '../shared/domain/grant-state.ts'
import { LOCK_MACHINE, REPLICA_MACHINE } from '../shared/domain/rule-state.ts'
import type { StateMachine } from '../shared/domain/state-machine.ts'
import { TRANSFER_MACHINE } from '../shared/domain/transfer-state.ts'
import { systemTerminal } from '../shared/runtime/terminal.ts'

/** Writes the generated documents, or with `--check` says whether they are what the source makes of them. */

const documents = new Map([
  ['docs/openapi.json', `${JSON.stringify(openApiDocument(), undefined, 1)}\n`],
  ['docs/states.md', statesPage()],
])

const check = process.argv.includes('--check')
for (const [path, text] of documents) {
  const url = new URL(`../../${path}`, import.meta.url)
  if (!check) await writeFile(url, text)
  else if ((await readFile(url, 'utf8').catch(() => '')) !== text) {
    systemTerminal.err(`${path} is not what the source says now: run npm run documents and commit it\n`)
    process.exitCode = 1
  }
}

function statesPage(): string {
  return [
    '# States',
    'Generated from the transition tables in `shared/domain` by `npm run documents`.',
    ...chapter('Transfer', TRANSFER_MACHINE),
    ...chapter('Lock', LOCK_MACHINE),
    ...chapter('Replica', REPLICA_MACHINE),
    ...chapter('Grant', GRANT_MACHINE),
    '',
  ].join('\n\n')
}

function chapter<State extends string, Event extends string>(
  name: string,
  machine: StateMachine<State, Event>,
): string[] {
  return [`## ${name}`, ['```mermaid', 'stateDiagram-v2', ...arrows(machine), '```'].join('\n')]
}

/** One arrow for each pair of states, with all events that lead along it. */
function arrows(machine: StateMachine<string, string>): string[] {
  const events = new Map<string, string[]>()
  for (const [state, row] of Object.entries(machine)) {
    for (const [event, next] of Object.entries(row)) {
      for (const target of [next ?? []].flat()) {
        const arrow = `  ${state} --> ${target}`
        events.set(arrow, [...(events.get(arrow) ?? []), event])
      }
    }
    if (Object.keys(row).length === 0) events.set(`  ${state} --> [*]`, [])
  }
  return [...events].map(([arrow, names]) => (names.length === 0 ? arrow : `${arrow}: ${names.join(', ')}`))
}
