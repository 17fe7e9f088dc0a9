import { type Command, InvalidArgumentError } from 'commander'
import { several, size } from '../cli/values.ts'
import { PLAYED, type Played, type RefuseOrder, type StartStorageOptions, type TapeSettings } from '../sandbox/main.ts'

/** How the sandbox's storages are told what to be: options of `waybill sandbox` and `waybill demo`, each as often as wanted. */
export interface PlayFlags {
  readonly play?: readonly string[]
  readonly tape?: readonly string[]
  readonly quota?: readonly string[]
  readonly macaroons?: readonly string[]
  readonly refuse?: readonly string[]
}

/** What is played at a storage. */
export type Play = Pick<StartStorageOptions, 'plays' | 'behaviour' | 'tape' | 'quotaBytes' | 'refuse'>

const FLAVOURS = Object.keys(PLAYED) as Played[]
const DIALECTS = ['dcache', 'eos'] as const satisfies readonly TapeSettings['dialect'][]
/** What is on tape is soon not on disk any more, so that recalls are seen. */
const DISK_SECONDS = 5

interface Kind {
  readonly flag: string
  readonly help: string
  /** What stands behind `NAME=`; empty when nothing does. Throws `InvalidArgumentError`. */
  readonly read: (value: string) => Play
}

const KINDS: Readonly<Record<keyof PlayFlags, Kind>> = {
  play: {
    flag: '<storage=kind>',
    help: `it behaves like one of ${FLAVOURS.join(', ')}`,
    read: value => ({ plays: oneWord(value, FLAVOURS) }),
  },
  tape: {
    flag: '<storage>',
    help: `it has a tape system, and its API as of dCache (SITE-C) or EOS (SITE-C=eos); files leave its disk after ${DISK_SECONDS} s`,
    read: value => ({
      tape: { dialect: value === '' ? 'dcache' : oneWord(value, DIALECTS), diskSeconds: DISK_SECONDS },
    }),
  },
  quota: {
    flag: '<storage=size>',
    help: 'more than that does not fit, and is refused with 507: SITE-B=10M',
    read: value => ({ quotaBytes: size(value) }),
  },
  macaroons: {
    flag: '<storage>',
    help: 'it issues macaroons',
    read: value => {
      if (value !== '') throw new InvalidArgumentError('a storage is wanted, and nothing else')
      return { behaviour: { macaroons: true } }
    },
  },
  refuse: {
    flag: '<storage=verb:status:times:seconds>',
    help: 'it refuses the next requests of the verb, once or so often, with or without so many seconds as Retry-After: SITE-B=PUT:503, SITE-B=COPY:429:20:30',
    read: value => ({ refuse: [refusal(value)] }),
  },
}
const NAMES = Object.keys(KINDS) as (keyof PlayFlags)[]

export function playOptions(command: Command): Command {
  for (const name of NAMES) {
    const { flag, help } = KINDS[name]
    command.option(`--${name} ${flag}`, `${help}; may be repeated`, (text: string, before?: string[]) => {
      readPlay(name, text)
      return several(text, before)
    })
  }
  return command
}

/** What is played, by storage: of what is told twice the last counts, but for refusals. */
export function playsOf(flags: PlayFlags): Map<string, Play> {
  const plays = new Map<string, Play>()
  for (const name of NAMES) {
    for (const text of flags[name] ?? []) {
      const [storage, play] = readPlay(name, text)
      const before = plays.get(storage)
      const refuse = [...(before?.refuse ?? []), ...(play.refuse ?? [])]
      plays.set(storage, { ...before, ...play, refuse })
    }
  }
  return plays
}

/** The same again, on the command line of another process. */
export function playArguments(flags: PlayFlags): string[] {
  return NAMES.flatMap(name => (flags[name] ?? []).flatMap(text => [`--${name}`, text]))
}

function readPlay(name: keyof PlayFlags, text: string): [storage: string, Play] {
  const [, storage = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(text) ?? []
  if (storage === '') throw new InvalidArgumentError('the name of a storage is wanted first')
  return [storage, KINDS[name].read(value)]
}

function oneWord<T extends string>(value: string, known: readonly T[]): T {
  const found = known.find(word => word === value)
  if (found === undefined) throw new InvalidArgumentError(`one of ${known.join(', ')} is wanted after the "="`)
  return found
}

function refusal(value: string): RefuseOrder {
  const [, verb, status = '', times = '1', seconds] =
    /^([A-Z]+):([45]\d\d)(?::(\d{1,6})(?::(\d{1,6}))?)?$/.exec(value) ?? []
  if (verb === undefined) {
    throw new InvalidArgumentError('after the "=" a verb and a status are wanted, e.g. PUT:503 or COPY:429:20:30')
  }
  const order = { verb, status: Number(status), times: Number(times) }
  return seconds === undefined ? order : { ...order, retryAfterSeconds: Number(seconds) }
}
