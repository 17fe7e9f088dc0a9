import type { Command } from 'commander'
import { addCommand, type Tools } from './command.ts'
import { given, wholeNumber } from './values.ts'

export function addActivityCommands(program: Command, tools: Tools): void {
  const activity = program.command('activity').description('activities, and their shares of the places on links')

  addCommand(activity, tools, {
    usage: 'list',
    summary: 'list the activities that have a weight, or transfers under way',
    examples: ['activity list'],
    run: async ({ client, output }) => {
      const { items } = await client.listActivities()
      await output.list(
        [items],
        [
          { name: 'activity', value: item => item.activity },
          { name: 'vo', value: item => item.vo },
          { name: 'weight', value: item => item.weight },
          { name: 'active', value: item => item.active },
        ],
      )
    },
  })

  addCommand<{ weight: number; vo?: string }>(activity, tools, {
    usage: 'set <name>',
    summary: 'set the weight of an activity; without one it is 1',
    options: command =>
      command
        .requiredOption('--weight <n>', 'of 4 places one of weight 3 gets 3, beside one of weight 1', wholeNumber)
        .option('--vo <name>', 'the VO; needed where there are several'),
    examples: ["activity set 'Data Export' --weight 3"],
    run: async ({ client, output }, [name = ''], { weight, vo }) =>
      output.one(await client.setActivity({ params: { activity: name }, body: { weight, ...given({ vo }) } })),
  })
}
