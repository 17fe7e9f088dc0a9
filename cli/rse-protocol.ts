import type { Command } from 'commander'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { addCommand, type Tools, UsageError } from './command.ts'
import { given, several } from './values.ts'

type Rse = Answer<Routes['getRse']>

export interface ProtocolFlags {
  readonly url: string
  readonly pull?: boolean
  readonly push?: boolean
  readonly freshConnections?: boolean
  readonly macaroons?: boolean
  /** False: none any more. */
  readonly redirectHost?: string[] | false
}

/** `rse protocol`. `show` is how a storage is shown. */
export function addProtocolCommand(rse: Command, tools: Tools, show: (rse: Rse) => Record<string, unknown>): void {
  addCommand<ProtocolFlags & { remove?: true }>(rse, tools, {
    usage: 'protocol <name>',
    summary: 'add a protocol to a storage; change or remove the one of the same URL: what is not given stays as it is',
    options: command => protocolOptions(command).option('--remove', 'remove it; the last one of a storage stays'),
    examples: [
      'rse protocol SITE-A --url https://xrootd.site-a.example.org:1094 --no-push',
      'rse protocol SITE-A --url https://old.site-a.example.org:1094 --remove',
    ],
    run: async ({ client, output }, [name = ''], { remove, ...flags }) => {
      const params = { rse: name }
      const body = protocolBody(flags)
      if (remove === true && Object.keys(body).length > 1)
        throw new UsageError('--remove goes with --url and nothing else')
      const answer =
        remove === true
          ? await client.removeProtocol({ params, query: { url: flags.url } })
          : await client.addProtocol({ params, body })
      output.one(answer, show)
    },
  })
}

export function protocolOptions(command: Command): Command {
  return command
    .requiredOption('--url <url>', 'https://host[:port]')
    .option('--pull', 'it takes COPY with Source, as a new one does')
    .option('--no-pull', 'it takes none')
    .option('--push', 'it takes COPY with Destination, as a new one does')
    .option('--no-push', 'it takes none')
    .option('--fresh-connections', 'a new connection for each COPY')
    .option('--no-fresh-connections', 'kept ones')
    .option('--macaroons', 'it issues macaroons: the other side of a copy is shown one of these')
    .option('--no-macaroons', 'it issues none')
    .option('--redirect-host <host>', 'host that it may redirect to, instead of those before; may be repeated', several)
    .option('--no-redirect-host', 'only to its own parent domain')
}

export function protocolBody({ url, pull, push, freshConnections, macaroons, redirectHost }: ProtocolFlags) {
  const redirectHosts = redirectHost === false ? [] : redirectHost
  return { url, ...given({ canPull: pull, canPush: push, freshConnections, macaroons, redirectHosts }) }
}

export function protocolText({
  url,
  priority,
  canPull,
  canPush,
  freshConnections,
  macaroons,
  redirectHosts,
}: Rse['protocols'][number]): string {
  const modes = [canPull ? 'pull' : '', canPush ? 'push' : ''].filter(mode => mode !== '')
  const properties = [
    modes.join(', ') || 'streamed only',
    `priority ${priority}`,
    freshConnections ? 'fresh connections' : '',
    macaroons ? 'macaroons' : '',
    redirectHosts.length === 0 ? '' : `redirects to ${redirectHosts.join(' ')}`,
  ]
  return `${url} (${properties.filter(property => property !== '').join(', ')})`
}
