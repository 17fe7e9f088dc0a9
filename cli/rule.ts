import type { Command } from 'commander'
import { idInPath } from '../shared/contract/fields.ts'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { addCommand, type Tools, UsageError } from './command.ts'
import { bytesText, type Column, timeText } from './output.ts'
import { pages } from './pages.ts'
import { addRuleLifeCommands } from './rule-life.ts'
import { showPreview } from './rule-preview.ts'
import { duration, given, oneOf, wholeNumber } from './values.ts'
import { watchRule } from './watch.ts'

export type Rule = Answer<Routes['getRule']>
type Why = Answer<Routes['getRuleWhy']>
type Place = Answer<Routes['listRulePlaces']>['items'][number]

const COLUMNS: readonly Column<Rule>[] = [
  { name: 'id', value: item => item.id },
  { name: 'did', value: item => item.did },
  { name: 'state', value: item => item.state },
  { name: 'ok/copying/stuck', value: ({ locks }) => `${locks.ok}/${locks.replicating}/${locks.stuck}` },
  { name: 'copies', value: item => item.copies },
  { name: 'expression', value: item => item.expression },
  { name: 'account', value: item => item.account },
  { name: 'expires', value: item => timeText(item.expiresAt) },
]
const PROBLEM_COLUMNS: readonly Column<Why['problems'][number]>[] = [
  { name: 'file', value: item => item.did },
  { name: 'rse', value: item => item.rse },
  { name: 'code', value: item => item.code },
  { name: 'message', value: item => item.message },
]
const GROUP_COLUMNS: readonly Column<Why['groups'][number]>[] = [
  { name: 'files', value: item => item.count },
  { name: 'code', value: item => item.code },
  { name: 'source', value: item => item.source },
  { name: 'destination', value: item => item.destination },
  { name: 'again', value: item => timeText(item.again) },
  { name: 'transfer', value: item => item.transfer },
  { name: 'why', value: item => item.sentence },
]
const PLACE_COLUMNS: readonly Column<Place>[] = [
  { name: 'rse', value: item => item.rse },
  { name: 'ok/copying/stuck', value: ({ locks }) => `${locks.ok}/${locks.replicating}/${locks.stuck}` },
  { name: 'size', value: item => bytesText(item.bytes) },
]
const GROUPINGS = ['ALL', 'DATASET', 'NONE'] as const
const STATES = ['REPLICATING', 'OK', 'STUCK', 'SUSPENDED', 'WAITING_APPROVAL', 'INJECT'] as const

interface AddFlags {
  readonly copies: number
  readonly to: string
  readonly from?: string
  readonly lifetime?: number
  readonly activity?: string
  readonly priority?: number
  readonly comment?: string
  readonly grouping?: (typeof GROUPINGS)[number]
  readonly weight?: string
  readonly archive?: true
  readonly purgeReplicas?: true
  readonly idempotencyKey?: string
  readonly watch?: true
  readonly dryRun?: true
  readonly askApproval?: true
}

export function addRuleCommands(program: Command, tools: Tools): void {
  const rule = program.command('rule').description('replication rules: how many copies of what, where, for how long')

  addCommand<AddFlags>(rule, tools, {
    usage: 'add <dids...>',
    summary: 'ask for copies: one rule for each DID',
    options: command =>
      command
        .requiredOption('--copies <n>', 'how many', wholeNumber)
        .requiredOption('--to <expression>', 'RSE expression: which storages may have them')
        .option('--from <expression>', 'RSE expression: which storages they may be copied from; default: any')
        .option('--lifetime <time>', 'how long they are kept: 3600, 12h, 7d; default: for ever', duration)
        .option('--activity <text>', 'what it is for')
        .option('--priority <1-5>', 'the higher the sooner', wholeNumber)
        .option('--comment <text>', 'for people')
        .option(
          '--grouping <what>',
          'keep together: all, dataset (default), or none: each file where it fits',
          oneOf(GROUPINGS),
        )
        .option('--weight <attribute>', 'choose storages in proportion to this attribute of theirs')
        .option('--archive', 'new copies count when they are on tape, at storages that have one')
        .option('--purge-replicas', 'copies that it alone asked for are deleted at once when it ends')
        .option('--idempotency-key <text>', 'the same key and rule again make no second one')
        .option('--ask-approval', 'whatever the quota: nothing is done before somebody approves the rule')
        .option('--dry-run', 'only say what would be chosen, and how many bytes would move')
        .option('--watch', 'stay until the rule is OK or stuck'),
    examples: [
      "rule add exp:run1 --copies 2 --to 'tier=1&country=de' --watch",
      "rule add exp:run1 --copies 2 --to 'tier=1' --weight disk --dry-run",
      'rule add exp:run1 --copies 1 --to SITE-B --lifetime 7d',
      "rule add exp:run1 --copies 1 --to SITE-B --from 'tier=1'",
    ],
    run: async (context, dids, flags) => {
      const { copies, to, from, idempotencyKey, watch, dryRun, ...others } = flags
      const body = { dids, copies, expression: to, ...given({ sourceExpression: from, ...others }) }
      if (dryRun === true) return showPreview(context.output, (await context.client.previewRules({ body })).items)
      const { items } = await context.client.addRules({ body, ...given({ idempotencyKey }) })
      await context.output.list([items], COLUMNS)
      if (watch !== true) return
      for (const { id } of items) await watchRule(context, id)
    },
  })

  addCommand<{ did?: string; account?: string; state?: string }>(rule, tools, {
    usage: 'list',
    summary: 'list rules',
    options: command =>
      command
        .option('--did <did>', 'only for this DID')
        .option('--account <name>', 'only of this account')
        .option('--state <state>', 'only in this state'),
    examples: ['rule list --state stuck', 'rule list --did exp:run1'],
    run: async ({ client, output }, _, { did, account, state }) => {
      const known = STATES.find(name => name === state?.toUpperCase())
      if (state !== undefined && known === undefined) throw new UsageError(`${state} is none of ${STATES.join(', ')}`)
      await output.list(
        pages(at => client.listRules({ query: { ...given({ did, account, state: known }), ...at } })),
        COLUMNS,
      )
    },
  })

  addCommand(rule, tools, {
    usage: 'show <id>',
    summary: 'show a rule with its progress and its problems',
    examples: ['rule show 17'],
    run: async ({ client, output }, [id = '']) => {
      const found = await client.getRule({ params: { id } })
      output.one(found, fields)
      if (output.json) return
      const { items } = await client.listRulePlaces({ params: { id } })
      if (items.length > 0) await output.list([items], PLACE_COLUMNS)
      if (found.problems !== undefined && found.problems.length > 0) {
        await output.list([found.problems], PROBLEM_COLUMNS)
      }
    },
  })

  addCommand(rule, tools, {
    usage: 'why <id>',
    summary: 'say what the files of a rule wait for, what failed, and when it is tried again',
    examples: ['rule why 17'],
    run: async ({ client, output }, [id = '']) => {
      const found = await client.getRuleWhy({ params: { id } })
      output.one(found, whyFields)
      if (output.json) return
      if (found.groups.length > 0) await output.list([found.groups], GROUP_COLUMNS)
      if (found.problems.length > 0) await output.list([found.problems], PROBLEM_COLUMNS)
    },
  })

  addCommand(rule, tools, {
    usage: 'repair <id>',
    summary: 'try again now what is stuck',
    examples: ['rule repair 17'],
    run: async ({ client, output }, [id = '']) =>
      output.done(`rule ${id} is being repaired`, await client.repairRule({ params: { id } })),
  })

  addCommand<{ timeout?: number }>(rule, tools, {
    usage: 'watch <id>',
    summary: 'show the progress of a rule until it is OK (exit status 0) or stuck (1)',
    options: command => command.option('--timeout <time>', 'give up after: 300, 10m, 2h', duration),
    examples: ['rule watch 17', 'rule watch 17 --timeout 2h'],
    run: (context, [id = ''], { timeout }) => watchRule(context, id, timeout),
  })

  addRuleLifeCommands(rule, tools)

  addCommand(rule, tools, {
    usage: 'remove <ids...>',
    summary: 'remove rules: copies that no other rule wants may be deleted',
    examples: ['rule remove 17'],
    run: async ({ client, output }, ids) => {
      const wrong = ids.find(id => !idInPath.safeParse(id).success)
      // Before any is removed.
      if (wrong !== undefined) throw new UsageError(`${wrong} is no rule: an id is a whole number, e.g. 17`)
      for (const id of ids) output.done(`rule ${id} is removed`, await client.removeRule({ params: { id } }))
    },
  })
}

function fields({ locks, problems: _, ...rule }: Rule): Record<string, unknown> {
  return {
    ...rule,
    locks: locksText(locks),
    expiresAt: timeText(rule.expiresAt),
    createdAt: timeText(rule.createdAt),
    updatedAt: timeText(rule.updatedAt),
  }
}

function whyFields({ id, did, state, sentence, locks, looked, more, again }: Why): Record<string, unknown> {
  return {
    id,
    did,
    state,
    why: sentence,
    locks: locksText(locks),
    looked: more ? `the first ${looked} of its transfers` : undefined,
    again: timeText(again),
  }
}

function locksText({ ok, replicating, stuck }: Rule['locks']): string {
  return `${ok} ok, ${replicating} replicating, ${stuck} stuck`
}
