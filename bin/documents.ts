import { readFile, writeFile } from 'node:fs/promises'
import process from 'node:process'
import type { ContractSnapshot } from '../shared/contract/compatibility.ts'
import { openApiDocument } from '../shared/contract/openapi.ts'
import { RELEASED_WORKER_CONTRACT } from '../shared/contract/worker-contract.ts'
import { snapshotFaults, snapshotPath, workerSnapshot } from '../shared/contract/worker-snapshot.ts'
import { ERROR_CATALOGUE, type ErrorEntry, type Holds, type Retry } from '../shared/domain/error-catalogue.ts'
import { GRANT_MACHINE, GRANT_STATES } from '../shared/domain/grant-state.ts'
import { IMPORT_MACHINE, IMPORT_STATES } from '../shared/domain/import-state.ts'
import { LOCK_MACHINE, LOCK_STATES, REPLICA_MACHINE, REPLICA_STATES } from '../shared/domain/rule-state.ts'
import type { StateMachine } from '../shared/domain/state-machine.ts'
import { TRANSFER_MACHINE, TRANSFER_STATES } from '../shared/domain/transfer-state.ts'
import { systemTerminal } from '../shared/runtime/terminal.ts'

const RETRIES: Readonly<Record<Retry, string>> = {
  soon: 'after seconds, at random, at most twice as long each time.',
  later: 'the same, beginning with a minute: the storage asks for rest.',
  never:
    'not before the rule’s repair, unless another source has the file: without somebody’s doing it would fail again.',
  uncounted: 'it is no attempt: what it waits for is looked at by itself.',
}

const HOLDS: Readonly<Record<Holds, string>> = {
  nothing: 'nothing.',
  storage: 'the storage in the scope, after ten files in a row, or as long as `Retry-After` says.',
  'storage-at-once': 'the same, with the first file.',
  grant: 'the token at that storage, when the next one is refused too.',
}

/** Writes the generated documents, or with `--check` says whether they are what the source makes of them. */

const current = workerSnapshot()
const { version } = current
const documents = new Map([
  ['docs/openapi.json', `${JSON.stringify(openApiDocument(), undefined, 1)}\n`],
  ['docs/states.md', statesPage()],
  ['docs/errors.md', errorsPage()],
])
// What was released is never written again.
if (version > RELEASED_WORKER_CONTRACT)
  documents.set(snapshotPath(version), `${JSON.stringify(current, undefined, 1)}\n`)

const check = process.argv.includes('--check')
for (const [path, text] of documents) {
  if (!check) await writeFile(place(path), text)
  else if ((await textOf(path)) !== text)
    fail(`${path} is not what the source says now: run npm run documents and commit it`)
}
const [stored, previous] = [await snapshotOf(version), await snapshotOf(version - 1)]
for (const fault of snapshotFaults({ current, released: RELEASED_WORKER_CONTRACT, stored, previous })) fail(fault)

function place(path: string): URL {
  return new URL(`../../${path}`, import.meta.url)
}

/** Empty when it is not there. */
async function textOf(path: string): Promise<string> {
  return readFile(place(path), 'utf8').catch(() => '')
}

async function snapshotOf(version: number): Promise<ContractSnapshot | undefined> {
  const text = await textOf(snapshotPath(version))
  return text === '' ? undefined : (JSON.parse(text) as ContractSnapshot)
}

function fail(sentence: string): void {
  systemTerminal.err(`${sentence}\n`)
  process.exitCode = 1
}

function statesPage(): string {
  return [
    '# States',
    'Generated from the transition tables in `shared/domain` by `npm run documents`.',
    ...chapter('Transfer', TRANSFER_STATES, TRANSFER_MACHINE),
    ...chapter('Lock', LOCK_STATES, LOCK_MACHINE),
    ...chapter('Replica', REPLICA_STATES, REPLICA_MACHINE),
    ...chapter('Grant', GRANT_STATES, GRANT_MACHINE),
    ...chapter('Import', IMPORT_STATES, IMPORT_MACHINE),
    '',
  ].join('\n\n')
}

function errorsPage(): string {
  return [
    '# Error codes',
    'Generated from `shared/domain/error-catalogue.ts` by `npm run documents`.',
    'Of attempts: in `waybill transfer show`, and in `waybill_transfer_errors_total{code}`. An error says where it happened (its scope), at which point of the attempt (its phase: before the copy, in it, after it), and in the storage’s own words what happened.',
    'Of each code: what happened, and what to do; then its scope, its phase where it has only some, when the transfer is tried again, and what is held back beside it.',
    Object.entries<ErrorEntry>(ERROR_CATALOGUE).map(errorLine).join('\n'),
    '## When it is tried again',
    definitions(RETRIES),
    '## What is held back',
    definitions(HOLDS),
    '## Of issuers',
    'Other codes that begin with `TOKEN_` or `ISSUER_` come from an issuer, with the scope TOKEN: see the grant’s error in `waybill token list`.',
  ]
    .join('\n\n')
    .concat('\n')
}

function definitions(words: Readonly<Record<string, string>>): string {
  return Object.entries(words)
    .map(([term, meaning]) => `- ${term}: ${meaning}`)
    .join('\n')
}

function errorLine([code, { scopes, phases, retry, holds, meaning }]: [string, ErrorEntry]): string {
  const phase = phases.length === 3 ? [] : [phases.join(', ')]
  const held = holds === 'nothing' ? [] : [`holds: ${holds}`]
  return `- \`${code}\`: ${meaning}. (${[scopes.join(', '), ...phase, `again: ${retry}`, ...held].join('; ')})`
}

function chapter<State extends string, Event extends string>(
  name: string,
  meanings: Readonly<Record<State, string>>,
  machine: StateMachine<State, Event>,
): string[] {
  return [`## ${name}`, definitions(meanings), ['```mermaid', 'stateDiagram-v2', ...arrows(machine), '```'].join('\n')]
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
