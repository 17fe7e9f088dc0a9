import type { Command } from 'commander'
import type { Client } from '../shared/contract/client.ts'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { addCommand, type Context, type Tools, UsageError } from './command.ts'
import { ageText, type Column } from './output.ts'
import { duration, given } from './values.ts'
import { follow, ProgressLine } from './watch.ts'

type Worker = Answer<Routes['drainWorker']>

interface PoolFlags {
  readonly client?: string | undefined
  readonly issuer?: string | undefined
}

const COLUMNS: readonly Column<Worker>[] = [
  { name: 'name', value: item => item.name },
  { name: 'pool', value: item => item.client },
  { name: 'state', value: item => item.state },
  { name: 'session', value: item => (item.alive ? ageText(item.sinceSeconds ?? 0) : 'none') },
  { name: 'active', value: item => item.active },
  { name: 'imports', value: item => item.imports },
  { name: 'drained for', value: item => (item.drainedSeconds === undefined ? '' : ageText(item.drainedSeconds)) },
  { name: 'version', value: item => item.version },
]

/** Beside `waybill worker`, which runs one. */
export function addWorkerCommands(program: Command, tools: Tools): void {
  const worker =
    program.commands.find(command => command.name() === 'worker') ??
    program.command('worker').description('the transfer workers')
  const poolOptions = (command: Command): Command =>
    command
      .option('--client <id>', 'client id of its pool, where several pools have a worker of that name')
      .option('--issuer <url>', 'issuer of its pool')

  addCommand(worker, tools, {
    usage: 'list',
    summary: 'list the workers that have a session or are drained',
    examples: ['worker list'],
    run: async ({ client, output }) => {
      const { items } = await client.listWorkers()
      await output.list([items], COLUMNS)
    },
  })

  addCommand<PoolFlags & { wait?: true; timeout?: number }>(worker, tools, {
    usage: 'drain <name>',
    summary: 'give a worker no more work: it finishes what it has and waits, also when it is started again',
    options: command =>
      poolOptions(command)
        .option('--wait', 'stay until it has no more work')
        .option('--timeout <time>', 'stay no longer than this: 3600, 10m', duration),
    examples: ['worker drain node1.example.org --wait', 'worker drain node1.example.org --wait --timeout 30m'],
    run: async (context, [name = ''], { client: pool, issuer, wait, timeout }) => {
      if (timeout !== undefined && wait !== true) throw new UsageError('--timeout goes with --wait')
      const drained = await context.client.drainWorker(call(name, { client: pool, issuer }))
      const found = wait === true ? await waitUntilDrained(context, drained, timeout) : drained
      context.output.done(`${name} is ${found.state}${workLeft(found)}`, found)
      if (wait === true && found.state === 'draining') {
        throw new WaybillError('WORKER_DRAINING', `${name} still has work after ${timeout} s; it goes on`)
      }
      if (wait === true && found.state === 'working') {
        throw new WaybillError('WORKER_RESUMED', `somebody has resumed ${name} meanwhile`)
      }
    },
  })

  addCommand<PoolFlags>(worker, tools, {
    usage: 'resume <name>',
    summary: 'give a drained worker work again',
    options: poolOptions,
    examples: ['worker resume node1.example.org'],
    run: async ({ client, output }, [name = ''], { client: pool, issuer }) => {
      const found = await client.resumeWorker(call(name, { client: pool, issuer }))
      output.done(found.alive ? `${name} gets work` : `${name} gets work as soon as it has a session`, found)
    },
  })
}

function call(worker: string, pool: PoolFlags): Parameters<Client['drainWorker']>[0] {
  return { params: { worker }, body: given(pool) }
}

/** `timeoutSeconds`: for ever when absent. */
async function waitUntilDrained(context: Context, drained: Worker, timeoutSeconds?: number): Promise<Worker> {
  const { client, clock, terminal } = context
  const line = new ProgressLine(terminal, clock)
  const isIt = (item: Worker): boolean =>
    item.name === drained.name && item.client === drained.client && item.issuer === drained.issuer
  return follow({
    // One that was resumed and has no session is not in the list.
    read: async () => (await client.listWorkers()).items.find(isIt) ?? { ...drained, state: 'working' as const },
    isDone: ({ state }) => state !== 'draining',
    clock,
    onProgress: found => line.show(`${found.name} is ${found.state}${workLeft(found)}`),
    ...(timeoutSeconds === undefined ? {} : { until: clock.monotonic() + timeoutSeconds * 1000 }),
  }).finally(() => line.end())
}

function workLeft({ state, active, imports }: Worker): string {
  if (state !== 'draining') return ''
  const parts = [`${active} ${active === 1 ? 'transfer' : 'transfers'}`]
  if (imports > 0) parts.push(`${imports} ${imports === 1 ? 'import' : 'imports'}`)
  return `: ${parts.join(' and ')} to finish`
}
