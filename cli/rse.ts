import type { Command } from 'commander'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { addCommand, type Tools, UsageError } from './command.ts'
import { timeText } from './output.ts'
import { addProtocolCommand, type ProtocolFlags, protocolBody, protocolOptions, protocolText } from './rse-protocol.ts'
import { type SettingFlags, settingOptions, settings, withoutDefaults } from './rse-settings.ts'
import { type AttributeValue, attribute, attributeValue, given, oneOf, onOff, wholeNumber } from './values.ts'

type Rse = Answer<Routes['getRse']>
type Distance = Answer<Routes['listDistances']>['items'][number]

export function addRseCommands(program: Command, tools: Tools): void {
  const rse = program.command('rse').description('storages (RSEs), their attributes, protocols and links')

  addCommand<AddFlags>(rse, tools, {
    usage: 'add <name>',
    summary: 'add a storage',
    options: command =>
      settingOptions(protocolOptions(command))
        .requiredOption('--prefix <path>', 'where replicas live: /data/exp')
        .option('--base-path <path>', 'what the storage puts before the paths of token scopes')
        .option('--audience <text>', 'what its tokens are for; default: the URL')
        .option('--vo <name>', 'the VO; needed where there are several')
        .option('--layout <name>', LAYOUTS.join(', '), oneOf(LAYOUTS))
        .option('--checksum <name>', CHECKSUMS.join(', '), oneOf(CHECKSUMS))
        .option('--attribute <key=value>', 'for RSE expressions; may be repeated', attribute),
    examples: [
      'rse add SITE-A --url https://xrootd.site-a.example.org:1094 --prefix /data/exp --base-path /data --attribute tier=1',
    ],
    run: async ({ client, output }, [name = ''], flags) => {
      const { prefix, vo, layout, checksum, audience, basePath } = flags
      const optional = given({ vo, audience, layout, checksum, basePath, attributes: flags.attribute })
      const body = { name, prefix, protocols: [protocolBody(flags)], ...optional, ...withoutDefaults(settings(flags)) }
      output.one(await client.addRse({ body }), rseFields)
    },
  })

  addCommand(rse, tools, {
    usage: 'list [expression]',
    summary: 'list storages, or those that an RSE expression names',
    examples: ['rse list', "rse list 'tier=1&country=de'"],
    run: async ({ client, output }, [expression]) => {
      const { items } = await client.listRses({ query: given({ expression }) })
      await output.list(
        [items],
        [
          { name: 'rse', value: item => item.name },
          { name: 'vo', value: item => item.vo },
          { name: 'open for', value: openFor },
          { name: 'url', value: item => item.protocols[0]?.url },
          { name: 'attributes', value: attributesText },
          { name: 'fails', value: failsText },
        ],
      )
    },
  })

  addCommand(rse, tools, {
    usage: 'show <name>',
    summary: 'show a storage',
    examples: ['rse show SITE-A'],
    run: async ({ client, output }, [name = '']) =>
      output.one(await client.getRse({ params: { rse: name } }), rseFields),
  })

  addCommand<SettingFlags & { read?: boolean; write?: boolean; delete?: boolean }>(rse, tools, {
    usage: 'set <name>',
    summary: 'change limits, availability or conduct of a storage',
    options: command =>
      settingOptions(command)
        .option('--read <on|off>', 'may be read from', onOff)
        .option('--write <on|off>', 'may be written to', onOff)
        .option('--delete <on|off>', 'may be deleted from', onOff),
    examples: [
      'rse set SITE-A --write off',
      'rse set SITE-A --max-inbound 30',
      'rse set SITE-A --watchdog no-progress=600',
    ],
    run: async ({ client, output }, [name = ''], { read, write, delete: remove, ...flags }) => {
      const availability = given({ availabilityRead: read, availabilityWrite: write, availabilityDelete: remove })
      const body = { ...availability, ...settings(flags) }
      if (Object.keys(body).length === 0) throw new UsageError('nothing to set: see waybill rse set --help')
      output.one(await client.updateRse({ params: { rse: name }, body }), rseFields)
    },
  })

  addCommand(rse, tools, {
    usage: 'remove <name>',
    summary: 'remove a storage that nothing was ever at, with its links; close others with rse set',
    examples: ['rse remove SITE-A', 'rse set SITE-A --read off --write off --delete off'],
    run: async ({ client, output }, [name = '']) =>
      output.done(`there is no storage ${name} any more`, await client.removeRse({ params: { rse: name } })),
  })

  addCommand(rse, tools, {
    usage: 'retry <name>',
    summary: 'try a storage now that is held back, as a destination or as a source',
    examples: ['rse retry SITE-A'],
    run: async ({ client, output }, [name = '']) => {
      const answer = await client.retryRse({ params: { rse: name } })
      const { lifted } = answer
      output.done(lifted === 0 ? `${name} is not held back` : `${name} is tried by a few files`, answer)
    },
  })

  addCommand<{ remove?: true }>(rse, tools, {
    usage: 'attribute <name> <key> [value]',
    summary: 'set an attribute of a storage, or remove it',
    options: command => command.option('--remove', 'remove it'),
    examples: ['rse attribute SITE-A country de', 'rse attribute SITE-A country --remove'],
    run: async ({ client, output }, [name = '', key = '', value], { remove }) => {
      const params = { rse: name, key }
      if ((value === undefined) !== (remove === true)) throw new UsageError('give a value, or --remove')
      const answer =
        value === undefined
          ? await client.removeAttribute({ params })
          : await client.setAttribute({ params, body: { value: attributeValue(value) } })
      output.one(answer, rseFields)
    },
  })

  addProtocolCommand(rse, tools, rseFields)

  addCommand<{ distance?: number; maxActive?: number; optimize?: boolean; remove?: true }>(rse, tools, {
    usage: 'distance [source] [destination]',
    summary: 'list the links; make, change or remove one',
    options: command =>
      command
        .option('--distance <n>', 'the smaller the better', wholeNumber)
        .option('--max-active <n>', 'transfers on it at a time, at most', wholeNumber)
        .option('--optimize <on|off>', 'whether it is learnt how many are best, and which mode; default: on', onOff)
        .option('--remove', 'close the link'),
    examples: ['rse distance', 'rse distance SITE-A SITE-B --distance 2', 'rse distance SITE-A SITE-B --remove'],
    run: async ({ client, output }, [source, destination], { distance, maxActive, optimize, remove }) => {
      const changes = distance !== undefined || maxActive !== undefined || optimize !== undefined
      if (source === undefined) {
        if (changes || remove === true) throw new UsageError('which link? name source and destination')
        const { items } = await client.listDistances()
        await output.list(
          [items],
          [
            { name: 'source', value: item => item.source },
            { name: 'destination', value: item => item.destination },
            { name: 'distance', value: item => item.distance },
            { name: 'max active', value: item => item.maxActive },
            { name: 'limit', value: limitText },
            { name: 'source fails', value: item => item.failing && failingText(item.failing) },
          ],
        )
        return
      }
      if (destination === undefined) throw new UsageError('a link has two ends: name source and destination')
      if (changes && remove === true) throw new UsageError('--remove goes without other options')
      const params = { source, destination }
      if (remove === true)
        output.done(`no link from ${source} to ${destination} any more`, await client.removeDistance({ params }))
      else output.one(await client.setDistance({ params, body: given({ distance, maxActive, optimize }) }))
    },
  })

  addCommand<{ limit?: number }>(rse, tools, {
    usage: 'decisions <source> <destination>',
    summary: 'why a link has its limit and its mode: the last decisions',
    options: command => command.option('--limit <n>', 'so many, the newest first; default: 100', wholeNumber),
    examples: ['rse decisions SITE-A SITE-B'],
    run: async ({ client, output }, [source = '', destination = ''], { limit }) => {
      const { items } = await client.listDecisions({ params: { source, destination }, query: given({ limit }) })
      await output.list(
        [items],
        [
          { name: 'at', value: item => timeText(item.at) },
          { name: 'of', value: item => item.subject },
          { name: 'code', value: item => item.code },
          { name: 'decision', value: item => item.sentence },
        ],
      )
    },
  })
}

type AddFlags = ProtocolFlags &
  SettingFlags & {
    readonly prefix: string
    readonly basePath?: string
    readonly audience?: string
    readonly vo?: string
    readonly layout?: (typeof LAYOUTS)[number]
    readonly checksum?: (typeof CHECKSUMS)[number]
    readonly attribute?: Record<string, AttributeValue>
  }

const LAYOUTS = ['dataset', 'identity', 'hash'] as const
const CHECKSUMS = ['adler32', 'md5'] as const

function openFor(rse: Rse): string {
  const words = [
    rse.availabilityRead ? 'read' : '',
    rse.availabilityWrite ? 'write' : '',
    rse.availabilityDelete ? 'delete' : '',
  ]
  return words.filter(word => word !== '').join(',') || 'nothing'
}

function attributesText({ attributes }: { attributes: Readonly<Record<string, unknown>> }): string {
  return Object.entries(attributes)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ')
}

/** Every property of a storage, for people. */
export function rseFields(rse: Rse): Record<string, unknown> {
  const { availabilityRead: _, availabilityWrite: __, availabilityDelete: ___, protocols, attributes, ...others } = rse
  const { watchdogs, failing: _failing, ...rest } = others
  return {
    ...rest,
    watchdogs: Object.keys(watchdogs).length === 0 ? undefined : attributesText({ attributes: watchdogs }),
    'open for': openFor(rse),
    attributes: Object.keys(attributes).length === 0 ? undefined : attributesText(rse),
    protocols: protocols.map(protocolText).join('; '),
    fails: failsText(rse),
  }
}

/** As a destination. */
function failsText({ failing }: Rse): string | undefined {
  return failing?.map(({ vo, ...own }) => `for ${vo} ${failingText(own)}`).join('; ')
}

function limitText({ limit, optimize }: Distance): string {
  return optimize ? `${limit}, learnt` : `${limit}`
}

function failingText({ failures, holds, since, heldUntil, code, message }: NonNullable<Distance['failing']>): string {
  const what =
    heldUntil === undefined
      ? `${failures} times`
      : `held back ${holds} times, until ${timeText(heldUntil)}, then on trial`
  return `since ${timeText(since)}, ${what}: ${code}: ${message}`
}
