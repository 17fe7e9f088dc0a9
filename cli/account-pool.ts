import type { Command } from 'commander'
import { addCommand, type Tools } from './command.ts'
import { timeText } from './output.ts'
import { pages } from './pages.ts'
import { given, wholeNumber } from './values.ts'

const VO: readonly [string, string] = ['--vo <name>', 'the VO; needed where there are several']

export function addAccountPoolCommands(account: Command, tools: Tools): void {
  const pool = account.command('pool').description('pools of accounts: one for each person, handed out at first use')

  addCommand<{ size?: number; vo?: string }>(pool, tools, {
    usage: 'set <pool>',
    summary: 'make a pool, or change how many accounts are held at a time',
    options: command =>
      command.option('--size <n>', 'default 200; 0: nobody gets one any more', wholeNumber).option(...VO),
    examples: ['account pool set exp --size 500'],
    run: async ({ client, output }, [name = ''], { size, vo }) =>
      output.one(await client.setAccountPool({ params: { pool: name }, body: given({ size, vo }) })),
  })

  addCommand(pool, tools, {
    usage: 'list',
    summary: 'list the pools',
    examples: ['account pool list'],
    run: async ({ client, output }) => {
      const { items } = await client.listAccountPools()
      await output.list(
        [items],
        [
          { name: 'pool', value: item => item.pool },
          { name: 'vo', value: item => item.vo },
          { name: 'size', value: item => item.size },
          { name: 'held', value: item => item.held },
          { name: 'released', value: item => item.released },
        ],
      )
    },
  })

  addCommand<{ vo?: string }>(pool, tools, {
    usage: 'accounts <pool>',
    summary: 'list the accounts of a pool, and whose they are',
    options: command => command.option(...VO),
    examples: ['account pool accounts exp'],
    run: async ({ client, output }, [name = ''], { vo }) =>
      output.list(
        pages(at => client.listPoolAccounts({ params: { pool: name }, query: { ...given({ vo }), ...at } })),
        [
          { name: 'account', value: item => item.account },
          { name: 'held', value: item => (item.held ? 'held' : 'released') },
          { name: 'since', value: item => timeText(item.since) },
          { name: 'subject', value: item => item.subject },
          { name: 'issuer', value: item => item.issuer },
        ],
      ),
  })

  addCommand<{ vo?: string }>(pool, tools, {
    usage: 'release <account>',
    summary:
      'make room for another: nobody else gets this account, and whoever had it gets it again when they come back',
    options: command => command.option(...VO),
    examples: ['account pool release exp017'],
    run: async ({ client, output }, [name = ''], { vo }) => {
      const answer = await client.releaseAccount({ params: { account: name }, body: given({ vo }) })
      output.done(`${name} is released`, answer)
    },
  })
}
