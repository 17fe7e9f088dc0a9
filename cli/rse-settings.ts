import { type Command, InvalidArgumentError } from 'commander'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { duration, given, oneOf, onOff, size, wholeNumber } from './values.ts'

type Rse = Answer<Routes['getRse']>
type Watchdogs = Rse['watchdogs']
/** Null: as if it had never been set. */
type WatchdogChange = { readonly [name in keyof Watchdogs]?: number | null }

export interface SettingFlags {
  readonly maxInbound?: number
  readonly maxOutbound?: number
  readonly maxStaging?: number
  readonly maxDeletions?: number
  readonly checksumPolicy?: Rse['checksumPolicy']
  readonly watchdog?: WatchdogChange
  readonly tape?: boolean
  readonly multihop?: boolean
  readonly capacity?: SizeOrNone
  readonly minFree?: SizeOrNone
  readonly keepRegistered?: boolean
  readonly tombstoneDelay?: number | 'none'
}

/** What can be set of a storage when it is made, and later. */
export function settingOptions(command: Command): Command {
  return command
    .option('--max-inbound <n>', 'transfers to it at a time', wholeNumber)
    .option('--max-outbound <n>', 'transfers from it at a time', wholeNumber)
    .option('--max-staging <n>', 'files asked back from its tape at a time', wholeNumber)
    .option('--max-deletions <n>', 'files under deletion at a time', wholeNumber)
    .option('--checksum-policy <name>', `compared as which side: ${POLICIES.join(', ')}`, oneOf(POLICIES))
    .option(
      '--watchdog <name=seconds>',
      `deadline of copies, or name=default for none of its own; may be repeated, others stay: ${Object.keys(WATCHDOGS).join(', ')}`,
      watchdog,
    )
    .option('--tape <on|off>', 'it has a tape behind it, and the tape REST API', onOff)
    .option('--multihop <on|off>', 'copies may go over it to others', onOff)
    .option('--capacity <size|none>', 'of the storage: 500T; none: nobody knows', sizeOrNone)
    .option('--min-free <size|none>', 'what nobody asks for is deleted only while less is free; none: soon', sizeOrNone)
    .option(
      '--keep-registered <on|off>',
      'what is registered, imported or uploaded there from now on stays when its last rule ends',
      onOff,
    )
    .option(
      '--tombstone-delay <time|none>',
      'from the end of the last rule to the deletion: 12h, 0; none: as the server is configured',
      durationOrNone,
    )
}

/** As the API takes changes of them. */
export function settings({ watchdog: watchdogs, capacity, minFree, tombstoneDelay, ...flags }: SettingFlags) {
  const { maxInbound, maxOutbound, maxStaging, maxDeletions, checksumPolicy, tape, multihop, keepRegistered } = flags
  const limits = { maxInbound, maxOutbound, maxStaging, maxDeletions }
  const space = { capacityBytes: orNull(capacity), minFreeBytes: orNull(minFree) }
  const deletion = { keepRegistered, tombstoneDelaySeconds: orNull(tombstoneDelay) }
  return given({ ...limits, checksumPolicy, watchdogs, tape, multihop, ...space, ...deletion })
}

/** The same for a new storage, which has nothing yet that could be taken back. */
export function withoutDefaults({ watchdogs = {}, ...others }: ReturnType<typeof settings>) {
  const own = Object.entries(watchdogs).filter(([, seconds]) => seconds !== null)
  return { ...others, watchdogs: Object.fromEntries(own) as Watchdogs }
}

const POLICIES = ['none', 'source', 'destination', 'both'] as const
const WATCHDOGS = {
  connect: 'connectSeconds',
  headers: 'headersSeconds',
  'no-marker': 'noMarkerSeconds',
  'no-progress': 'noProgressSeconds',
  'total-base': 'totalBaseSeconds',
  'total-per-mib': 'totalPerMibSeconds',
} as const satisfies Record<string, keyof Watchdogs>

const LONGEST_SECONDS = 604_800

function watchdog(text: string, before: WatchdogChange = {}): WatchdogChange {
  const [, name = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(text) ?? []
  const key = Object.entries(WATCHDOGS).find(([known]) => known === name)?.[1]
  if (key === undefined)
    throw new InvalidArgumentError(`name=seconds is wanted, the name one of ${Object.keys(WATCHDOGS).join(', ')}`)
  if (value === 'default') return { ...before, [key]: null }
  const seconds = /^\d{1,6}(?:\.\d{1,3})?$/.test(value) ? Number(value) : 0
  if (seconds === 0 || seconds > LONGEST_SECONDS)
    throw new InvalidArgumentError(`${name} is so many seconds, more than 0 and ${LONGEST_SECONDS} at most, or default`)
  return { ...before, [key]: seconds }
}

/** The word itself: commander makes an empty text of null. */
type SizeOrNone = number | 'none'

function sizeOrNone(text: string): SizeOrNone {
  return text === 'none' ? text : size(text)
}

function durationOrNone(text: string): number | 'none' {
  return text === 'none' ? text : duration(text)
}

function orNull(value: SizeOrNone | undefined): number | null | undefined {
  return value === 'none' ? null : value
}
