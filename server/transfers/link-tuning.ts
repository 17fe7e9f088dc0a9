/** A link's limit and mode, decided anew by what it did since the last time. Pure; times are epoch milliseconds. */
import { type Mode, type ModeDecision, type ModeSums, preferMode } from './modes.ts'
import { modeSentenceOf } from './modes-words.ts'
import { nextLimit } from './optimizer.ts'
import { keptLimit, type OptimizerState } from './optimizer-decision.ts'
import { sentenceOf } from './optimizer-words.ts'
import { added, NO_SUMS, PACED_MODES, type PacedMode, type Sums } from './pace.ts'
import type { LinkWindow } from './throughput.ts'

export const TUNING = {
  /** Of what is measured between two decisions. */
  window: 60_000,
  /** A link that nobody has measured for so long was idle: what it did before says nothing of now. */
  gap: 180_000,
  /** Looks at how many are active that an average needs. */
  looks: 6,
  /** What copies of one mode add up to fades to a third in a day. */
  modes: 86_400_000,
  /** What tells that a mode has begun to fail fades so in ten minutes. */
  recent: 600_000,
} as const

/** How many were active on each link, at one time. */
export interface Look {
  readonly at: number
  readonly active: ReadonlyMap<number, number>
}

/** What a link did in one minute and mode. */
export interface MinuteSums extends Sums {
  readonly minute: number
  readonly mode: PacedMode
}

type SumsByMode = Readonly<Record<PacedMode, Sums>>

/** What one decision leaves for the next, stored as JSON. */
export interface TuningState {
  /** Of its shape: what another version has left is dropped. */
  readonly version: typeof STATE_VERSION
  readonly optimizer?: OptimizerState
  readonly limitCode?: string
  readonly modeCode?: string
  /** The window's sums are those since this minute, less those that were there when it began. */
  readonly minute: number
  readonly before: SumsByMode
  readonly modes: SumsOfModes
  readonly recent: SumsOfModes
}

type SumsOfModes = Readonly<Record<Mode, ModeSums>>

const STATE_VERSION = 3

export interface LinkToTune {
  readonly id: number
  /** The learnt limit. */
  readonly learnt: number
  /** The least of the link's own limit and those of its storages. */
  readonly maximum: number
  /** When the window began; undefined: nothing was measured yet. */
  readonly measuredAt: number | undefined
  readonly state: TuningState | undefined
  /** Undefined: nothing is known. */
  readonly mode: Pick<ModeDecision, 'preferred' | 'tries'> | undefined
  /** It can pull and push. */
  readonly bothModes: boolean
}

/** A decision as it is kept. `before`, `after`: a limit or a mode. */
export interface KeptDecision {
  readonly subject: 'limit' | 'mode'
  readonly before: number | string
  readonly after: number | string
  readonly code: string
  readonly figures: object
  readonly sentence: string
}

export interface Tuned {
  readonly linkId: number
  /** What the decision was made on: another has decided meanwhile when it is that no more. */
  readonly measuredAt: number | undefined
  readonly state: TuningState
  /** The learnt limit, which may be above the maximum. */
  readonly limit: number
  readonly mode: Pick<ModeDecision, 'preferred' | 'tries'> | undefined
  /** Those that changed something, or have another reason than the last. */
  readonly decisions: readonly KeptDecision[]
}

export function stateFrom(text: string | null): TuningState | undefined {
  if (text === null) return undefined
  const state = JSON.parse(text) as { version?: unknown }
  return state.version === STATE_VERSION ? (state as TuningState) : undefined
}

/** From where on the minutes of a link are to be read: one more than the window's, for outcomes that came late. */
export function minuteToRead(link: LinkToTune, now: number): number {
  return isIdle(link, now) ? firstMinute(now) : (link.state?.minute ?? firstMinute(now))
}

function firstMinute(at: number): number {
  return Math.floor(at / 60_000) - 1
}

/** The looks that a window needs. */
export function looksIn(looks: readonly Look[], since: number): Look[] {
  return looks.filter(({ at }) => at > since)
}

export function isIdle({ measuredAt, state }: LinkToTune, now: number): boolean {
  return measuredAt === undefined || state === undefined || now - measuredAt > TUNING.gap
}

/** Begins to measure a link of which nothing is known, or that was idle: its limit and mode stay. */
export function beginMeasuring(link: LinkToTune, minutes: readonly MinuteSums[], now: number): Tuned {
  const kept = link.state ?? { version: STATE_VERSION, modes: NO_MODES, recent: NO_MODES }
  const passed = now - (link.measuredAt ?? now)
  const sums = byMode(() => NO_SUMS)
  const modes = later(kept.modes, sums, passed, TUNING.modes)
  const recent = later(kept.recent, sums, passed, TUNING.recent)
  const state = { ...kept, ...nextWindow(minutes, now), modes, recent }
  return { linkId: link.id, measuredAt: link.measuredAt, state, limit: link.learnt, mode: link.mode, decisions: [] }
}

/** What was seen of a link in a window: of its looks the mean, and the part that found it full; `queued` is counted up to a bound. */
export interface SeenLink {
  readonly active: number
  readonly full: number
  readonly queued: number
  readonly minutes: readonly MinuteSums[]
}

/** What the window that ends now says. */
export function tuned(
  link: LinkToTune & { readonly measuredAt: number; readonly state: TuningState },
  seen: SeenLink,
  now: number,
): Tuned {
  const { id: linkId, measuredAt, maximum, state } = link
  const length = now - measuredAt
  const sums = without(totals(seen.minutes), state.before)
  const window = windowOf(length, sums, seen)
  const decision = nextLimit({
    limit: link.learnt,
    maximum,
    window,
    state: state.optimizer,
  })
  const modes = later(state.modes, sums, length, TUNING.modes)
  const recent = later(state.recent, sums, length, TUNING.recent)
  const preferred = link.mode?.preferred ?? 'pull'
  const mode = link.bothModes ? preferMode({ preferred, ...modes, recent }) : undefined
  const decisions: KeptDecision[] = []
  const { from, limit, code, figures } = decision
  if (from !== limit || code !== state.limitCode) {
    decisions.push({ subject: 'limit', before: from, after: limit, code, figures, sentence: sentenceOf(decision) })
  }
  if (mode !== undefined && (mode.preferred !== preferred || mode.code !== state.modeCode)) {
    const sentence = modeSentenceOf(preferred, mode)
    const change = { before: preferred, after: mode.preferred, code: mode.code, figures: mode.figures, sentence }
    decisions.push({ subject: 'mode', ...change })
  }
  const next: TuningState = {
    version: STATE_VERSION,
    optimizer: decision.state,
    limitCode: code,
    ...(mode === undefined ? {} : { modeCode: mode.code }),
    ...nextWindow(seen.minutes, now),
    modes,
    recent,
  }
  return { linkId, measuredAt, state: next, limit: keptLimit(decision.state), mode, decisions }
}

function nextWindow(minutes: readonly MinuteSums[], now: number): Pick<TuningState, 'minute' | 'before'> {
  const minute = firstMinute(now)
  return { minute, before: totals(minutes.filter(sums => sums.minute >= minute)) }
}

function totals(minutes: readonly MinuteSums[]): SumsByMode {
  return byMode(mode =>
    minutes.filter(sums => sums.mode === mode).reduce<Sums>((sum, each) => added(sum, each), NO_SUMS),
  )
}

function without(sums: SumsByMode, before: SumsByMode): SumsByMode {
  return byMode(mode => added(sums[mode], before[mode], -1))
}

function byMode(of: (mode: PacedMode) => Sums): SumsByMode {
  return { pull: of('pull'), push: of('push'), stream: of('stream'), none: of('none') }
}

function windowOf(
  length: number,
  byItsMode: SumsByMode,
  { active, full, queued }: Omit<SeenLink, 'minutes'>,
): LinkWindow {
  const sums = PACED_MODES.reduce<Sums>((sum, mode) => added(sum, byItsMode[mode]), NO_SUMS)
  return { length, ...sums, squaredSeconds: Math.max(0, sums.squaredSeconds), active, full, queued }
}

const NO_MODE_SUMS: ModeSums = { files: 0, bytes: 0, milliseconds: 0, failures: 0 }
const NO_MODES: SumsOfModes = { pull: NO_MODE_SUMS, push: NO_MODE_SUMS }

/** With a window that passed; what was before fades to a third in `memory` milliseconds. */
function later(before: SumsOfModes, window: SumsByMode, passed: number, memory: number): SumsOfModes {
  const part = Math.exp(-passed / memory)
  const sum = (mode: Mode): ModeSums => ({
    files: before[mode].files * part + window[mode].files,
    bytes: before[mode].bytes * part + window[mode].bytes,
    milliseconds: before[mode].milliseconds * part + window[mode].milliseconds,
    failures: before[mode].failures * part + window[mode].failures,
  })
  return { pull: sum('pull'), push: sum('push') }
}

/** The mean number of active transfers on a link over these looks. */
export function averageActive(looks: readonly Look[], linkId: number): number {
  return looks.reduce((sum, { active }) => sum + (active.get(linkId) ?? 0), 0) / Math.max(1, looks.length)
}

/** Of these looks the part that found so many, or more, active on a link. */
export function partFull(looks: readonly Look[], linkId: number, limit: number): number {
  return looks.filter(({ active }) => (active.get(linkId) ?? 0) >= limit).length / Math.max(1, looks.length)
}
