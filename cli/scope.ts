import type { Command } from 'commander'
import { addCommand, type Tools, UsageError } from './command.ts'
import { pages } from './pages.ts'
import { given } from './values.ts'

export function addScopeCommands(program: Command, tools: Tools): void {
  const scope = program
    .command('scope')
    .description('who may do what in a scope; without such words it is open to its VO')

  addCommand<{ write?: true; rule?: true; manage?: true; vo?: string }>(scope, tools, {
    usage: 'allow <scope> <account>',
    summary: 'say what an account may do in a scope; with the first such word it is closed to all others',
    options: command =>
      command
        .option('--write', 'make, open and close DIDs, attach, register, upload, import')
        .option('--rule', 'make rules on its DIDs')
        .option('--manage', 'both, and others’ rules and these permissions')
        .option('--vo <name>', 'the VO of a scope that is not there yet; needed where there are several'),
    examples: ['scope allow exp production --write --rule', 'scope allow user.alice alice --manage'],
    run: async ({ client, output }, [name = '', account = ''], { vo, ...flags }) => {
      const permissions = (['write', 'rule', 'manage'] as const).filter(one => flags[one] === true)
      if (permissions.length === 0) throw new UsageError('give --write, --rule, --manage, or several of them')
      const params = { scope: name, account }
      const answer = await client.setPermissions({ params, body: { permissions, ...given({ vo }) } })
      output.done(`${account} may ${permissions.join(' and ')} in ${name}`, answer)
    },
  })

  addCommand(scope, tools, {
    usage: 'deny <scope> <account>',
    summary: 'take from an account what it may do in a scope',
    examples: ['scope deny exp bob'],
    run: async ({ client, output }, [name = '', account = '']) => {
      const answer = await client.removePermissions({ params: { scope: name, account } })
      output.done(`${account} has no permission in ${name} any more`, answer)
    },
  })

  addCommand(scope, tools, {
    usage: 'list <scope>',
    summary: 'list who may do what in a scope; nobody is listed where it is open to its VO',
    examples: ['scope list exp'],
    run: async ({ client, output }, [name = '']) =>
      output.list(
        pages(query => client.listPermissions({ params: { scope: name }, query })),
        [
          { name: 'account', value: item => item.account },
          { name: 'permissions', value: item => item.permissions.join(' ') },
        ],
      ),
  })

  addCommand(scope, tools, {
    usage: 'open <scope>',
    summary: 'take all permissions of a scope away: it is open to all accounts of its VO again',
    examples: ['scope open exp'],
    run: async ({ client, output }, [name = '']) => {
      const answer = await client.openScope({ params: { scope: name } })
      output.done(`${name} is open to all accounts of its VO`, answer)
    },
  })
}
