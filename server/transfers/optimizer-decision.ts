/** What the optimizer decides, what it rests on, and what it remembers. Pure. */
import {
  type Level,
  type LinkWindow,
  NO_EFFECT,
  NO_LEVEL,
  NOISE,
  NOTHING,
  type SizeEffect,
  together,
} from './throughput.ts'

export type OptimizerCode =
  | 'INCREASE_PAYS'
  | 'NO_GAIN'
  | 'LESS_SUFFICES'
  | 'LESS_CARRIES_LESS'
  | 'PROBE_UP'
  | 'PROBE_DOWN'
  | 'UNDECIDED'
  | 'MEASURING'
  | 'AT_MAXIMUM'
  | 'ABOVE_MAXIMUM'
  | 'MAXIMUM_RAISED'
  | 'THROUGHPUT_FELL'
  | 'THROUGHPUT_ROSE'
  | 'OTHER_SIZES'
  | 'FAILURES'
  | 'OUTAGE'
  | 'AFTER_OUTAGE'
  | 'OVERLOADED'
  | 'DEMAND_BELOW_LIMIT'
  | 'TOO_FEW_FILES'
  | 'TAKING_EFFECT'
  | 'NO_INFORMATION'

export const OPTIMIZER = {
  /** Attempts that must have ended before anything is said of them. */
  files: 10,
  /** A limit was used if so much of it ran, or if it was reached so often. */
  used: 0.9,
  full: 0.5,
  /** What a step must bring: this part of what it would bring to a link that is not full. */
  pays: 0.15,
  /** Steps, as logarithms: from 16 % to 35 %, and one at least. */
  step: { least: 0.15, most: 0.3, grows: 1.5, shrinks: 0.6 },
  /** Windows of a trial, at most: not more than a level remembers. */
  trial: 6,
  /** Windows before a trial that count in it, at most. */
  fresh: 4,
  /** Windows between trials: the more, the more of them in a row led nowhere. */
  rests: [1, 2, 4, 8, 16],
  /** A window is odd that differs by so many standard errors. */
  odd: 3,
  /** Of all attempts: where fewer succeed less is tried; where fewer than `outage` do nothing is learnt. */
  failing: 0.9,
  outage: 0.5,
  /** Failures without which there is no outage. */
  outageFailures: 5,
  /** After a change it is not waited for longer until files end that began before it. Milliseconds. */
  delay: 3_600_000,
  /** In an outage the limit is halved, down to this part of the learnt one. */
  reduced: 8,
  /** So often it fails again on the way back: then it is too much that fails. Less often it may be outages that come and go. */
  relapses: 4,
} as const

/** What a decision left for the next: plain numbers, to be stored as JSON. */
export interface OptimizerState {
  /** The limit that was learnt: it outlives trials, outages and idle times. Of more than the maximum so much as that. */
  readonly learnt: number
  /** All that was learnt, while the maximum is below it. 0: it is not. */
  readonly beyond: number
  readonly atLearnt: Level
  /** The limit on trial. 0: none is. */
  readonly trial: number
  readonly atTrial: Level
  /** The trial pauses for a window: the learnt limit is in force. */
  readonly between: boolean
  /** Of the next trial, or of the present one: more or less, and by how much (a logarithm). */
  readonly direction: 1 | -1
  readonly step: number
  /** Trials in a row that led nowhere, and windows since the last. */
  readonly fruitless: number
  readonly rested: number
  /** The limit in an outage and just after it. 0: there is none. */
  readonly reduced: number
  /** The last limit that copied on the way back from an outage, and how often more failed at once. 0: as well as ever. */
  readonly worked: number
  readonly relapses: number
  /** A window unlike those before it: alone it is chance, two are a change. */
  readonly odd: Level
  readonly noise: number
  readonly sizeEffect: SizeEffect
  /** Windows with too few files for a verdict, together. */
  readonly pending: LinkWindow
  /** How long files take, each counted by its time, in milliseconds. 0: not known. */
  readonly lasting: number
  /** Milliseconds until what ends has run at the limit in force. */
  readonly delay: number
}

/**
 * Two limits, and how much more the second carried: a logarithm, 0.05 is 5 %. Differences in sizes are taken out of it.
 */
export interface Comparison {
  readonly limits: readonly [number, number]
  readonly gain: number
  readonly windows: number
}

/**
 * What a decision rests on: what the link did (what came together if one window was too little), and what was compared.
 */
export interface OptimizerFigures {
  readonly seconds: number
  readonly files: number
  readonly bytes: number
  readonly failures: number
  readonly active: number
  readonly queued: number
  readonly learnt: number
  readonly maximum: number
  readonly compared?: Comparison
}

export interface OptimizerDecision {
  readonly from: number
  readonly limit: number
  readonly code: OptimizerCode
  readonly figures: OptimizerFigures
  readonly state: OptimizerState
}

/** One decision as it is made. */
export interface Turn {
  readonly from: number
  readonly maximum: number
  readonly window: LinkWindow
  /** With those before it that were too little. */
  readonly seen: LinkWindow
  readonly state: OptimizerState
}

export function turnOf(from: number, maximum: number, window: LinkWindow, state: OptimizerState): Turn {
  return { from, maximum, window, seen: together(state.pending, window), state }
}

/** Nothing is known but where to begin. */
export function startAt(limit: number): OptimizerState {
  return {
    learnt: Math.max(1, Math.floor(limit)),
    beyond: 0,
    atLearnt: NO_LEVEL,
    trial: 0,
    atTrial: NO_LEVEL,
    between: false,
    direction: 1,
    step: OPTIMIZER.step.most,
    fruitless: 0,
    rested: 0,
    reduced: 0,
    worked: 0,
    relapses: 0,
    odd: NO_LEVEL,
    noise: NOISE.first,
    sizeEffect: NO_EFFECT,
    pending: NOTHING,
    lasting: 0,
    delay: 0,
  }
}

export function inForce({ reduced, trial, between, learnt }: OptimizerState): number {
  return reduced || (between ? 0 : trial) || learnt
}

/** The limit to keep for the link: as far as the maximum is in force it is all that was learnt, and the lesser of both counts. */
export function keptLimit(state: OptimizerState): number {
  const limit = inForce(state)
  return limit === state.learnt ? Math.max(limit, state.beyond) : limit
}

export function withoutTrial(state: OptimizerState): OptimizerState {
  return { ...state, trial: 0, atTrial: NO_LEVEL, between: false }
}

export function decided(
  turn: Turn,
  code: OptimizerCode,
  state: OptimizerState,
  compared?: Comparison,
): OptimizerDecision {
  const { from, maximum, window, seen } = turn
  const { length, files, bytes, failures, active, queued } = seen
  const sums = { seconds: length / 1_000, files, bytes, failures, active, queued }
  const limit = inForce(state)
  // Who has found another limit below the maximum has no use for what is above.
  const own = state.learnt === turn.state.learnt ? state : { ...state, beyond: 0 }
  const next = limit === from ? own : { ...own, pending: NOTHING, delay: delayAfter(state, window) }
  const learnt = Math.max(next.learnt, next.beyond)
  const figures = { ...sums, learnt, maximum, ...(compared === undefined ? {} : { compared }) }
  return { from, limit, code, figures, state: next }
}

/** Until then those end that began at the old limit; nothing where that is little of a window. */
function delayAfter({ lasting }: OptimizerState, window: LinkWindow): number {
  return lasting > window.length / 4 ? Math.min(lasting, OPTIMIZER.delay) : 0
}
