import type { Command } from 'commander'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { addCommand, type Tools, UsageError } from './command.ts'
import { type Column, timeText } from './output.ts'
import { pages } from './pages.ts'
import { duration, given, wholeNumber } from './values.ts'

type Event = Answer<Routes['listRuleEvents']>['items'][number]

const EVENT_COLUMNS: readonly Column<Event>[] = [
  { name: 'at', value: item => timeText(item.at) },
  { name: 'rule', value: item => item.rule },
  { name: 'did', value: item => item.did },
  { name: 'event', value: item => item.event },
  { name: 'by', value: item => item.actor },
  {
    name: 'details',
    value: item => (Object.keys(item.details).length === 0 ? undefined : JSON.stringify(item.details)),
  },
]

interface UpdateFlags {
  readonly lifetime?: number
  readonly forever?: true
  readonly priority?: number
  readonly activity?: string
  readonly comment?: string
  readonly lock?: true
  readonly unlock?: true
}

/** What people do with a rule that is there: below the command `rule`. */
export function addRuleLifeCommands(rule: Command, tools: Tools): void {
  addCommand<UpdateFlags>(rule, tools, {
    usage: 'update <id>',
    summary: 'change a rule; its transfers follow',
    options: command =>
      command
        .option('--lifetime <time>', 'how long it is kept from now on: 3600, 12h, 7d', duration)
        .option('--forever', 'it does not expire')
        .option('--priority <1-5>', 'the higher the sooner', wholeNumber)
        .option('--activity <text>', 'what it is for')
        .option('--comment <text>', 'for people; an empty one takes it away')
        .option('--lock', 'it is not removed, and does not expire')
        .option('--unlock', 'it may be removed again'),
    examples: ['rule update 17 --priority 5', 'rule update 17 --lifetime 30d --lock'],
    run: async ({ client, output }, [id = ''], { lifetime, forever, lock, unlock, comment, ...others }) => {
      if (lifetime !== undefined && forever) throw new UsageError('--lifetime or --forever, not both')
      if (lock && unlock) throw new UsageError('--lock or --unlock, not both')
      const body = {
        ...given(others),
        ...given({ lifetime: forever ? null : lifetime, comment: comment === '' ? null : comment }),
        ...given({ locked: lock ? true : unlock ? false : undefined }),
      }
      if (Object.keys(body).length === 0) throw new UsageError('what is to be changed? `--help` says what can be')
      output.done(`rule ${id} is changed`, await client.updateRule({ params: { id }, body }))
    },
  })

  for (const { usage, summary, suspended, done } of [
    {
      usage: 'suspend <id>',
      summary: 'do nothing for a rule: what is there stays',
      suspended: true,
      done: 'suspended',
    },
    { usage: 'resume <id>', summary: 'go on with a suspended rule', suspended: false, done: 'resumed' },
  ]) {
    addCommand(rule, tools, {
      usage,
      summary,
      examples: [`rule ${usage.replace('<id>', '17')}`],
      run: async ({ client, output }, [id = '']) =>
        output.done(`rule ${id} is ${done}`, await client.updateRule({ params: { id }, body: { suspended } })),
    })
  }

  for (const { usage, summary, approve, done } of [
    {
      usage: 'approve <id>',
      summary: 'approve a rule that waits for it, whatever the quota',
      approve: true,
      done: 'approved',
    },
    {
      usage: 'deny <id>',
      summary: 'deny a rule that waits for approval: it is removed',
      approve: false,
      done: 'denied',
    },
  ]) {
    addCommand<{ reason?: string }>(rule, tools, {
      usage,
      summary,
      options: command => command.option('--reason <text>', 'for the history of the rule'),
      examples: [`rule ${usage.replace('<id>', '17')} --reason 'for the summer conferences'`],
      run: async ({ client, output }, [id = ''], { reason }) =>
        output.done(
          `rule ${id} is ${done}`,
          await client.judgeRule({ params: { id }, body: { approve, ...given({ reason }) } }),
        ),
    })
  }

  addCommand<{ to: string; copies?: number }>(rule, tools, {
    usage: 'move <id>',
    summary: 'have the copies of a rule elsewhere: a new rule, and the old one goes when the new one is OK',
    options: command =>
      command
        .requiredOption('--to <expression>', 'RSE expression: which storages may have them')
        .option('--copies <n>', 'how many; default: as many', wholeNumber),
    examples: ["rule move 17 --to 'tier=1&country=fr'"],
    run: async ({ client, output }, [id = ''], { to, copies }) => {
      const answer = await client.replaceRule({ params: { id }, body: { expression: to, ...given({ copies }) } })
      output.done(`rule ${answer.id} takes the place of rule ${id} when it is OK`, answer)
    },
  })

  addCommand<{ copies: number }>(rule, tools, {
    usage: 'reduce <id>',
    summary: 'have fewer copies: a new rule at storages that hold them already, and the old one goes',
    options: command => command.requiredOption('--copies <n>', 'how many are to be left', wholeNumber),
    examples: ['rule reduce 17 --copies 1'],
    run: async ({ client, output }, [id = ''], { copies }) => {
      const { copies: before } = await client.getRule({ params: { id } })
      if (copies >= before) throw new UsageError(`rule ${id} has ${before} copies: fewer are wanted`)
      const answer = await client.replaceRule({ params: { id }, body: { copies } })
      output.done(`rule ${answer.id} takes the place of rule ${id} when it is OK`, answer)
    },
  })

  addCommand<{ did?: string }>(rule, tools, {
    usage: 'history [id]',
    summary: 'show what happened to a rule, or to all rules that a DID has and had; also when they are gone',
    options: command => command.option('--did <did>', 'of all its rules'),
    examples: ['rule history 17', 'rule history --did exp:run1'],
    run: async ({ client, output }, [id], { did }) => {
      if ((id === undefined) === (did === undefined)) throw new UsageError('a rule or --did <did> is wanted')
      const events =
        did === undefined
          ? pages(at => client.listRuleEvents({ params: { id: id ?? '' }, query: at }))
          : pages(at => client.listDidEvents({ query: { did, ...at } }))
      await output.list(events, EVENT_COLUMNS)
    },
  })
}
