import type { Command } from 'commander'
import { addLimitCommands } from './account-limits.ts'
import { addMapCommands } from './account-map.ts'
import { addAccountPoolCommands } from './account-pool.ts'
import { addCommand, type Tools } from './command.ts'
import { timeText } from './output.ts'
import { pages } from './pages.ts'
import { given } from './values.ts'

export function addAccountCommands(program: Command, tools: Tools): void {
  const account = program.command('account').description('accounts and the identities that are mapped to them')

  addCommand<{ vo?: string }>(account, tools, {
    usage: 'add <name>',
    summary: 'add an account',
    options: command => command.option('--vo <name>', 'the VO; needed where there are several'),
    examples: ['account add alice'],
    run: async ({ client, output }, [name = ''], { vo }) =>
      output.one(await client.addAccount({ body: { name, ...given({ vo }) } })),
  })

  addCommand(account, tools, {
    usage: 'list',
    summary: 'list accounts',
    examples: ['account list'],
    run: async ({ client, output }) =>
      output.list(
        pages(query => client.listAccounts({ query })),
        [
          { name: 'account', value: item => item.name },
          { name: 'vo', value: item => item.vo },
        ],
      ),
  })

  addCommand<{ issuer: string; subject: string; vo?: string; move?: true }>(account, tools, {
    usage: 'identity <account>',
    summary: 'map an identity (issuer and subject of a token) to an account',
    options: command =>
      command
        .requiredOption('--issuer <url>', 'as it stands in the token (iss)')
        .requiredOption('--subject <text>', 'as it stands in the token (sub)')
        .option('--vo <name>', 'the VO; needed where there are several')
        .option('--move', 'also when it is another account’s until now'),
    examples: [
      'account identity alice --issuer https://iam.example.org/ --subject 6fb4a1b2-90d1-4a8a-9b1c-2f1d3c4b5a69',
    ],
    run: async ({ client, output }, [name = ''], { issuer, subject, vo, move = false }) => {
      const answer = await client.addIdentity({ body: { issuer, subject, account: name, move, ...given({ vo }) } })
      output.done(`${subject} of ${issuer} is ${name} now`, answer)
    },
  })

  addCommand<{ issuer: string; subject: string }>(account, tools, {
    usage: 'unmap',
    summary: 'take an identity away from its account: whoever it is has no rights any more',
    options: command =>
      command
        .requiredOption('--issuer <url>', 'as it stands in the token (iss)')
        .requiredOption('--subject <text>', 'as it stands in the token (sub)'),
    examples: ['account unmap --issuer https://iam.example.org/ --subject 6fb4a1b2-90d1-4a8a-9b1c-2f1d3c4b5a69'],
    run: async ({ client, output }, _, { issuer, subject }) => {
      const answer = await client.removeIdentity({ query: { issuer, subject } })
      output.done(`${subject} of ${issuer} is nobody now`, answer)
    },
  })

  addCommand(account, tools, {
    usage: 'whoami',
    summary: 'show who the server takes you for',
    examples: ['account whoami'],
    run: async ({ client, output }) => output.one(await client.whoami()),
  })

  addLimitCommands(account, tools)
  addMapCommands(account, tools)
  addAccountPoolCommands(account, tools)
}

export function addTokenCommands(program: Command, tools: Tools): void {
  const token = program.command('token').description('the grants: which tokens there are, and how narrow they are')

  addCommand<{ rse?: string }>(token, tools, {
    usage: 'list',
    summary: 'list the grants, without the tokens',
    options: command => command.option('--rse <name>', 'only for this storage'),
    examples: ['token list --rse SITE-A'],
    run: async ({ client, output }, _, { rse }) =>
      output.list(
        pages(at => client.listGrants({ query: { ...given({ rse }), ...at } })),
        [
          { name: 'id', value: item => item.id },
          { name: 'rse', value: item => item.rse },
          { name: 'purpose', value: item => item.purpose },
          { name: 'state', value: item => item.state },
          { name: 'minted/exchanged/refreshed', value: item => `${item.minted}/${item.exchanged}/${item.refreshed}` },
          { name: 'expires', value: item => timeText(item.expiresAt) },
          { name: 'audience', value: item => item.audience },
          { name: 'scopes', value: item => item.scopes.join(' ') },
        ],
      ),
  })
}
