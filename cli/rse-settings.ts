import { type Command, InvalidArgumentError } from 'commander'
import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { given, oneOf, onOff, size, wholeNumber } from './values.ts'

type Rse = Answer<Routes['getRse']>
type Watchdogs = Rse['watchdogs']

export interface SettingFlags {
  readonly maxInbound?: number
  readonly maxOutbound?: number
  readonly maxStaging?: number
  readonly maxDeletions?: number
  readonly checksumPolicy?: Rse['checksumPolicy']
  readonly watchdog?: Watchdogs
  readonly tape?: boolean
  readonly multihop?: boolean
  readonly capacity?: number | null
  readonly minFree?: number | null
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
      `deadline of copies; may be repeated: ${Object.keys(WATCHDOGS).join(', ')}`,
      watchdog,
    )
    .option('--tape <on|off>', 'it has a tape behind it, and the tape REST API', onOff)
    .option('--multihop <on|off>', 'copies may go over it to others', onOff)
    .option('--capacity <size|none>', 'of the storage: 500T; none: nobody knows', orNone)
    .option('--min-free <size|none>', 'what nobody asks for is deleted only while less is free; none: soon', orNone)
}

/** As the API takes them. */
export function settings({
  watchdog: watchdogs,
  capacity: capacityBytes,
  minFree: minFreeBytes,
  ...flags
}: SettingFlags) {
  const { maxInbound, maxOutbound, maxStaging, maxDeletions, checksumPolicy, tape, multihop } = flags
  const limits = { maxInbound, maxOutbound, maxStaging, maxDeletions }
  return given({ ...limits, checksumPolicy, watchdogs, tape, multihop, capacityBytes, minFreeBytes })
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

function watchdog(text: string, before: Watchdogs = {}): Watchdogs {
  const [, name = '', seconds = ''] = /^([a-z-]+)=(\d{1,6}(?:\.\d{1,3})?)$/.exec(text) ?? []
  const key = Object.entries(WATCHDOGS).find(([known]) => known === name)?.[1]
  if (key === undefined || Number(seconds) === 0)
    throw new InvalidArgumentError(`name=seconds is wanted, the name one of ${Object.keys(WATCHDOGS).join(', ')}`)
  return { ...before, [key]: Number(seconds) }
}

function orNone(text: string): number | null {
  return text === 'none' ? null : size(text)
}
