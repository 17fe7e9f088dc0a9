import type { Command } from 'commander'
import { addCommand, type Tools, UsageError } from './command.ts'
import { pages } from './pages.ts'
import { given, size } from './values.ts'

/** How every account of a VO is written. */
const EVERYBODY = '*'

/** `account limit`, `account limits`, `account usage`: below the command `account`. */
export function addLimitCommands(account: Command, tools: Tools): void {
  addCommand<{ at: string; bytes?: number; unlimited?: true; remove?: true; vo?: string }>(account, tools, {
    usage: 'limit <account>',
    summary: 'limit what an account may lock at storages; * stands for every account without a limit of its own there',
    options: command =>
      command
        .requiredOption('--at <expression>', 'RSE expression: the limit is of all its storages together')
        .option('--bytes <size>', 'no more than that: 0, 500G, 20T', size)
        .option('--unlimited', 'without limit, whatever every account has')
        .option('--remove', 'take the limit back')
        .option('--vo <name>', 'the VO; needed where there are several'),
    examples: [
      'account limit alice --at SITE-A --bytes 20T',
      "account limit alice --at 'tier=1' --bytes 500T",
      "account limit '*' --at '*' --bytes 0",
    ],
    run: async ({ client, output }, [name = ''], { at, bytes, unlimited, remove, vo }) => {
      if ([bytes, unlimited, remove].filter(value => value !== undefined).length !== 1)
        throw new UsageError('one of --bytes, --unlimited and --remove is wanted')
      const limit = { expression: at, ...(name === EVERYBODY ? {} : { account: name }), ...given({ vo }) }
      if (remove === true) output.done(`the limit at ${at} is gone`, await client.removeLimit({ query: limit }))
      else
        output.done(
          `${name} may lock ${bytes === undefined ? 'anything' : `${bytes} bytes`} at ${at}`,
          await client.setLimit({ body: { ...limit, bytes: bytes ?? null } }),
        )
    },
  })

  addCommand<{ vo?: string }>(account, tools, {
    usage: 'limits [account]',
    summary: 'list the limits, or those that hold for an account',
    options: command => command.option('--vo <name>', 'the VO; needed where there are several'),
    examples: ['account limits', 'account limits alice'],
    run: async ({ client, output }, [name], { vo }) => {
      const shown = given({ account: name, vo })
      await output.list(
        pages(at => client.listLimits({ query: { ...shown, ...at } })),
        [
          { name: 'account', value: item => item.account ?? EVERYBODY },
          { name: 'vo', value: item => item.vo },
          { name: 'at', value: item => item.expression },
          { name: 'bytes', value: item => item.bytes ?? 'unlimited' },
          { name: 'error', value: item => item.error },
        ],
      )
    },
  })

  addCommand<{ vo?: string }>(account, tools, {
    usage: 'usage <account>',
    summary: 'show what an account locks at each storage, and how much more it may',
    options: command => command.option('--vo <name>', 'the VO; needed where there are several'),
    examples: ['account usage alice'],
    run: async ({ client, output }, [name = ''], { vo }) => {
      const { items } = await client.getUsage({ params: { account: name }, query: given({ vo }) })
      await output.list(
        [items],
        [
          { name: 'rse', value: item => item.rse },
          { name: 'files', value: item => item.files },
          { name: 'bytes', value: item => item.bytes },
          { name: 'reserved', value: item => item.reserved },
          { name: 'left', value: item => item.left ?? 'unlimited' },
        ],
      )
    },
  })
}
