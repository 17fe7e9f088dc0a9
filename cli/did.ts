import type { Command } from 'commander'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { parseDid } from '../shared/domain/names.ts'
import { addCommand, type Tools, UsageError } from './command.ts'
import { bytesText, type Column, timeText } from './output.ts'
import { chunks, pages } from './pages.ts'
import { given } from './values.ts'

type Did = Answer<Routes['getDid']>

const COLUMNS: readonly Column<Did>[] = [
  { name: 'did', value: item => item.did },
  { name: 'type', value: item => item.type },
  { name: 'files', value: item => item.files },
  { name: 'size', value: item => bytesText(item.bytes) },
  { name: 'open', value: item => (item.open ? 'open' : 'closed') },
  { name: 'created', value: item => timeText(item.createdAt) },
]

/** As many as one request takes. */
const MOST = 10_000
const TYPES = ['FILE', 'DATASET', 'CONTAINER'] as const

export function addDidCommands(program: Command, tools: Tools): void {
  const did = program.command('did').description('data identifiers: files, datasets, containers')

  addCommand<{ container?: true }>(did, tools, {
    usage: 'add <dids...>',
    summary: 'make datasets, or containers',
    options: command => command.option('--container', 'containers, which hold datasets'),
    examples: ['did add exp:run1', 'did add exp:all --container'],
    run: async ({ client, output }, names, { container }) => {
      const type = container === true ? 'CONTAINER' : 'DATASET'
      const answer = await client.addDids({ body: { dids: names.map(name => ({ did: name, type })) } })
      output.done(`${answer.created} made`, answer)
    },
  })

  addCommand<{ prefix?: string; type?: string }>(did, tools, {
    usage: 'list <scope>',
    summary: 'list the DIDs of a scope',
    options: command =>
      command
        .option('--prefix <text>', 'only names that begin so')
        .option('--type <type>', 'file, dataset or container'),
    examples: ['did list exp --type dataset', 'did list exp --prefix run1'],
    run: async ({ client, output }, [scope = ''], { prefix, type }) => {
      const known = TYPES.find(name => name === type?.toUpperCase())
      if (type !== undefined && known === undefined) throw new UsageError(`${type} is none of file, dataset, container`)
      const query = { scope, ...given({ prefix, type: known }) }
      await output.list(
        pages(at => client.listDids({ query: { ...query, ...at } })),
        COLUMNS,
      )
    },
  })

  addCommand(did, tools, {
    usage: 'show <did>',
    summary: 'show a DID',
    examples: ['did show exp:run1'],
    run: async ({ client, output }, [name = '']) =>
      output.one(await client.getDid({ params: parseDid(name) }), item => ({
        ...item,
        bytes: bytesText(item.bytes),
        createdAt: timeText(item.createdAt),
      })),
  })

  addCommand(did, tools, {
    usage: 'attach <did> <dids...>',
    summary: 'attach files to a dataset, or datasets and containers to a container',
    examples: ['did attach exp:all exp:run1 exp:run2'],
    run: async ({ client, output }, [parent = '', ...children]) => {
      const params = parseDid(parent)
      let attached = 0
      for (const dids of chunks(children, MOST)) attached += (await client.attach({ params, body: { dids } })).attached
      output.done(`${attached} attached to ${parent}`, { attached })
    },
  })

  addCommand(did, tools, {
    usage: 'detach <did> <dids...>',
    summary: 'detach files from a dataset, or datasets and containers from a container',
    examples: ['did detach exp:all exp:run1', 'did detach exp:run1 exp:run1/hist.root'],
    run: async ({ client, output }, [parent = '', ...children]) => {
      const params = parseDid(parent)
      let detached = 0
      for (const dids of chunks(children, MOST)) detached += (await client.detach({ params, body: { dids } })).detached
      output.done(`${detached} detached from ${parent}`, { detached })
    },
  })

  addCommand(did, tools, {
    usage: 'contents <did>',
    summary: 'list what a dataset or container holds',
    examples: ['did contents exp:run1'],
    run: async ({ client, output }, [name = '']) => {
      const params = parseDid(name)
      await output.list(
        pages(query => client.listContents({ params, query })),
        COLUMNS,
      )
    },
  })

  addCommand<{ reopen?: true }>(did, tools, {
    usage: 'close <did>',
    summary: 'close a dataset or container: nothing can be attached or detached any more',
    options: command => command.option('--reopen', 'open it again'),
    examples: ['did close exp:run1', 'did close exp:run1 --reopen'],
    run: async ({ client, output }, [name = ''], { reopen }) => {
      const answer = await client.setOpen({ params: parseDid(name), body: { open: reopen === true } })
      output.done(`${answer.did} is ${answer.open ? 'open' : 'closed'}`, answer)
    },
  })
}
