import type { Command } from 'commander'
import type { Client } from '../shared/contract/client.ts'
import { addCommand, type Tools, UsageError } from './command.ts'
import { given, several, someNumber } from './values.ts'

type MappingBody = Parameters<Client['addMapping']>[0]['body']

/** What of a token can be matched: option and claim. */
interface ClaimFlags {
  readonly sub?: string
  readonly clientId?: string
  readonly group?: string
  readonly entitlement?: string
  readonly scope?: string
}

interface TryFlags {
  readonly issuer: string
  readonly sub?: string
  readonly clientId?: string
  readonly group?: string[]
  readonly entitlement?: string[]
  readonly scope?: string[]
}

export function addMapCommands(account: Command, tools: Tools): void {
  const map = account.command('map').description('patterns by which tokens are mapped to accounts; the first counts')

  addCommand<ClaimFlags & { issuer: string; account?: string; pool?: string; vo?: string; at?: number }>(map, tools, {
    usage: 'add',
    summary: 'map all tokens with such a claim to an account, or each person to one of a pool',
    options: command =>
      command
        .requiredOption('--issuer <url>', 'as it stands in the token (iss)')
        .option('--sub <pattern>', 'the subject; in patterns `*` is anything but / and :, `**` at the end anything')
        .option('--client-id <pattern>', 'the client (client_id, else azp): all who come through it')
        .option('--group <pattern>', 'one of the groups (wlcg.groups, groups)')
        .option('--entitlement <pattern>', 'one of the entitlements (eduperson_entitlement, entitlements)')
        .option('--scope <pattern>', 'one of the scopes; whoever may ask for it has the account')
        .option('--account <name>', 'this account; {1} is what the first wildcard stands for')
        .option('--pool <name>', 'an account of this pool for each')
        .option('--vo <name>', 'the VO; needed where there are several')
        .option('--at <position>', 'before the one that is there now; default: last', someNumber),
    examples: [
      'account map add --issuer https://iam.example.org/ --group /exp/production --account production',
      "account map add --issuer https://iam.example.org/ --group '/exp/**' --pool exp --at 2",
    ],
    run: async ({ client, output }, _, { issuer, account: name, pool, vo, at, ...flags }) => {
      const claims = claimsOf(flags)
      const [claim, second] = claims
      if (claim === undefined || second !== undefined)
        throw new UsageError('give one of --sub, --client-id, --group, --entitlement, --scope')
      if ((name === undefined) === (pool === undefined)) throw new UsageError('give either --account or --pool')
      output.one(
        await client.addMapping({ body: { issuer, ...claim, ...given({ account: name, pool, vo, position: at }) } }),
      )
    },
  })

  addCommand(map, tools, {
    usage: 'list',
    summary: 'list the mappings in the order in which they are asked',
    examples: ['account map list'],
    run: async ({ client, output }) => {
      const { items } = await client.listMappings()
      await output.list(
        [items],
        [
          { name: 'position', value: item => item.position },
          { name: 'id', value: item => item.id },
          { name: 'issuer', value: item => item.issuer },
          { name: 'claim', value: item => item.claim },
          { name: 'pattern', value: item => item.pattern },
          { name: 'account', value: item => item.account },
          { name: 'pool', value: item => item.pool },
          { name: 'vo', value: item => item.vo },
        ],
      )
    },
  })

  addCommand(map, tools, {
    usage: 'remove <id>',
    summary: 'remove a mapping: whom it alone mapped has no account any more',
    examples: ['account map remove 3'],
    run: async ({ client, output }, [id = '']) => {
      const answer = await client.removeMapping({ params: { id } })
      output.done(`mapping ${id} is removed`, answer)
    },
  })

  addCommand<TryFlags>(map, tools, {
    usage: 'try',
    summary: 'say which account a token with such claims would have, and why; nothing is handed out',
    options: command =>
      command
        .requiredOption('--issuer <url>', 'as it stands in the token (iss)')
        .option('--sub <text>', 'the subject')
        .option('--client-id <text>', 'the client')
        .option('--group <text>', 'a group; may be given several times, in the token’s order', several)
        .option('--entitlement <text>', 'an entitlement; may be given several times', several)
        .option('--scope <text>', 'a scope; may be given several times', several),
    examples: ['account map try --issuer https://iam.example.org/ --sub 6fb4a1b2 --group /exp --group /exp/production'],
    run: async ({ client, output }, _, { issuer, sub, clientId, group, entitlement, scope }) => {
      const claims = given({ subject: sub, clientId, groups: group, entitlements: entitlement, scopes: scope })
      output.one(await client.tryMappings({ body: { issuer, ...claims } }))
    },
  })
}

function claimsOf(flags: ClaimFlags): Pick<MappingBody, 'claim' | 'pattern'>[] {
  const { sub, clientId, group, entitlement, scope } = flags
  const all = { sub, client_id: clientId, group, entitlement, scope }
  return Object.entries(all).flatMap(([claim, pattern]) =>
    pattern === undefined ? [] : [{ claim: claim as MappingBody['claim'], pattern }],
  )
}
