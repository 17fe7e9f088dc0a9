import type { Command } from 'commander'
import { ENDED_STATES, TRANSFER_MACHINE } from '../shared/domain/transfer-state.ts'
import { addCommand, type Tools, UsageError } from './command.ts'
import { bytesText, timeText } from './output.ts'
import { pages } from './pages.ts'
import { given } from './values.ts'
import { figuresText } from './why.ts'

const STATES = Object.keys(TRANSFER_MACHINE) as (keyof typeof TRANSFER_MACHINE)[]

interface ListFlags {
  readonly state?: string
  readonly source?: string
  readonly destination?: string
  readonly rule?: string
}

export function addTransferCommands(program: Command, tools: Tools): void {
  const transfer = program.command('transfer').description('copies on their way, and how they ended')

  addCommand<ListFlags>(transfer, tools, {
    usage: 'list',
    summary: 'list transfers, with why they wait',
    options: command =>
      command
        .option('--state <state>', 'only in this state')
        .option('--source <rse>', 'only from this storage')
        .option('--destination <rse>', 'only to this storage')
        .option('--rule <id>', 'only those of a rule'),
    examples: ['transfer list --state waiting', 'transfer list --rule 17'],
    run: async ({ client, output }, _, { state, source, destination, rule }) => {
      const known = STATES.find(name => name === state?.toUpperCase())
      if (state !== undefined && known === undefined) throw new UsageError(`${state} is none of ${STATES.join(', ')}`)
      if (rule !== undefined && (source !== undefined || destination !== undefined)) {
        throw new UsageError('--rule goes with --state only')
      }
      const found = pages(at =>
        rule === undefined
          ? client.listTransfers({ query: { ...given({ state: known, source, destination }), ...at } })
          : client.listRuleTransfers({ params: { id: rule }, query: { ...given({ state: known }), ...at } }),
      )
      await output.list(found, [
        { name: 'id', value: item => item.id },
        { name: 'did', value: item => item.did },
        { name: 'source', value: item => item.source },
        { name: 'destination', value: item => item.destination },
        { name: 'state', value: item => item.state },
        { name: 'size', value: item => bytesText(item.bytes) },
        { name: 'attempts', value: item => item.attempts },
        { name: 'reason', value: item => item.reason ?? '' },
      ])
    },
  })

  addCommand(transfer, tools, {
    usage: 'show <id>',
    summary: 'show a transfer with all its attempts',
    examples: ['transfer show 4711'],
    run: async ({ client, output }, [id = '']) => {
      const found = await client.getTransfer({ params: { id } })
      output.one(found, ({ attemptList: _, ...item }) => ({
        ...item,
        bytes: bytesText(item.bytes),
        bytesDone: ENDED_STATES.some(state => state === item.state) ? undefined : bytesText(item.bytesDone),
        notBefore: timeText(item.notBefore),
        replanned:
          item.replanned &&
          `${timeText(item.replanned.at)} from ${item.replanned.from}: ${item.replanned.code}: ${item.replanned.message}`,
        createdAt: timeText(item.createdAt),
        updatedAt: timeText(item.updatedAt),
      }))
      if (output.json || found.attemptList.length === 0) return
      await output.list(
        [found.attemptList],
        [
          { name: 'started', value: item => timeText(item.startedAt) },
          { name: 'ended', value: item => timeText(item.endedAt) },
          { name: 'from', value: item => item.source },
          { name: 'mode', value: item => item.mode },
          { name: 'outcome', value: item => item.outcome },
          { name: 'bytes', value: item => bytesText(item.bytes) },
          { name: 'code', value: item => item.error?.code ?? '' },
          { name: 'message', value: item => item.error?.message ?? '' },
        ],
      )
    },
  })

  addCommand(transfer, tools, {
    usage: 'why <id>',
    summary: 'say what a transfer waits for, and when it is looked at again',
    examples: ['transfer why 4711'],
    run: async ({ client, output }, [id = '']) => {
      const found = await client.getTransferWhy({ params: { id } })
      output.one(found, ({ figures, sentence, again, ...item }) => ({
        ...item,
        why: sentence,
        ...figuresText(figures, item),
        again: timeText(again),
      }))
    },
  })
}
