/**
 * How many transfers a link should run at a time. It tries a little more and a little less, as long as it takes to tell
 * the difference from noise, and keeps what pays. Where nothing can be learnt (no demand, an outage) it keeps what it
 * knows. FTS's rule and its faults: facts/transfers.md, "Parallelism per link". Pure: the same windows give the same
 * decisions.
 */
import {
  decided,
  keptLimit,
  OPTIMIZER,
  type OptimizerDecision,
  type OptimizerState,
  startAt,
  type Turn,
  turnOf,
  withoutTrial,
} from './optimizer-decision.ts'
import { judge, trialLeft, WIDE } from './optimizer-trials.ts'
import { type LinkWindow, NO_LEVEL, NOTHING, successShare } from './throughput.ts'

export interface OptimizerInput {
  /** What was kept of the last decision (`keptLimit`): in force while the window passed, as far as the maximum allows. */
  readonly limit: number
  /** What the link's own limit and its two storages allow. */
  readonly maximum: number
  /** What the link did since the last decision: about a minute. */
  readonly window: LinkWindow
  /** What the last decision left. undefined: there was none. */
  readonly state: OptimizerState | undefined
}

/**
 * The next limit of a link, from 1 to its maximum, and why. To be asked once a window, of every link that ran
 * something.
 */
export function nextLimit({ limit, maximum, window, state }: OptimizerInput): OptimizerDecision {
  const most = Math.max(1, Math.floor(maximum))
  const before = stateFor(limit, state)
  const turn = turnOf(Math.min(limit, most), most, window, within(most, before))
  return (
    otherMaximum(turn, before) ??
    withoutChoice(turn) ??
    inOutage(turn) ??
    afterOutage(turn) ??
    stalled(turn) ??
    takingEffect(turn) ??
    belowLimit(turn) ??
    tooFew(turn) ??
    judge(turn)
  )
}

/** Where somebody else has set a limit it begins anew, from there. */
function stateFor(limit: number, state: OptimizerState | undefined): OptimizerState {
  if (state === undefined) return startAt(limit)
  if (keptLimit(state) === limit) return state
  return { ...startAt(limit), noise: state.noise, sizeEffect: state.sizeEffect }
}

/** A maximum below what was learnt is the learnt limit for as long as it lasts: at what is above nothing can be measured. */
function within(maximum: number, state: OptimizerState): OptimizerState {
  const all = Math.max(state.learnt, state.beyond)
  const learnt = Math.min(all, maximum)
  if (learnt === state.learnt) return state.trial > maximum ? { ...withoutTrial(state), odd: NO_LEVEL } : state
  const reduced = state.reduced < learnt ? state.reduced : 0
  const fresh = { atLearnt: NO_LEVEL, odd: NO_LEVEL, pending: NOTHING, delay: 0 }
  return { ...withoutTrial(state), ...fresh, learnt, beyond: all > maximum ? all : 0, reduced }
}

function otherMaximum(turn: Turn, before: OptimizerState): OptimizerDecision | undefined {
  const { state } = turn
  if (state === before) return undefined
  return decided(turn, state.learnt > before.learnt ? 'MAXIMUM_RAISED' : 'ABOVE_MAXIMUM', state)
}

function withoutChoice(turn: Turn): OptimizerDecision | undefined {
  return turn.maximum === 1 ? decided(turn, 'AT_MAXIMUM', turn.state) : undefined
}

/**
 * More failures than copies. What was learnt is kept; less runs meanwhile, for too much may be what a storage suffers
 * from: it is, where it copies at less and fails again at more.
 */
function inOutage(turn: Turn): OptimizerDecision | undefined {
  const { state, window, seen, from } = turn
  if (!isOutage(window) && !isOutage(seen)) return undefined
  // What fails while more is tried may fail for that; if not it is seen at the learnt limit next.
  if (from > state.learnt) return decided(turn, 'FAILURES', { ...trialLeft(state), odd: NO_LEVEL, pending: NOTHING })
  const fresh = { ...withoutTrial(state), odd: NO_LEVEL, pending: NOTHING }
  const relapses = state.relapses + (state.worked > 0 && from > state.worked ? 1 : 0)
  if (relapses >= OPTIMIZER.relapses) {
    const learnt = { learnt: state.worked, atLearnt: NO_LEVEL, reduced: 0, worked: 0, relapses: 0 }
    return decided(turn, 'OVERLOADED', { ...fresh, ...learnt, ...WIDE, direction: 1 })
  }
  const least = Math.ceil(state.learnt / OPTIMIZER.reduced)
  const reduced = Math.min(from, Math.max(least, Math.floor(from / 2)))
  return decided(turn, 'OUTAGE', { ...fresh, reduced, relapses })
}

function isOutage(window: LinkWindow): boolean {
  return window.failures >= OPTIMIZER.outageFailures && successShare(window) < OPTIMIZER.outage
}

/** Doubled with each window that copies again, up to what was learnt; up by a step where some still fails, as it may at any limit. */
function afterOutage(turn: Turn): OptimizerDecision | undefined {
  const { state, window, from } = turn
  if (state.reduced === 0) return undefined
  if (window.files === 0) return decided(turn, 'NO_INFORMATION', state)
  const success = successShare(window)
  if (success < OPTIMIZER.outage) return decided(turn, 'OUTAGE', state)
  const times = success < OPTIMIZER.failing ? Math.exp(OPTIMIZER.step.most) : 2
  const raised = Math.max(state.reduced + 1, Math.round(times * state.reduced))
  return decided(turn, 'AFTER_OUTAGE', {
    ...state,
    reduced: raised < state.learnt ? raised : 0,
    worked: from,
    rested: 0,
  })
}

/**
 * Nothing ends that should have. When it goes on, what hung ends first, the largest last: its long times say nothing of
 * the limit.
 */
function stalled(turn: Turn): OptimizerDecision | undefined {
  const { state, seen } = turn
  if (seen.files + seen.failures > 0 || state.lasting === 0) return undefined
  const expected = (seen.active * seen.length) / state.lasting
  if (expected < (state.delay > 0 ? STALL.goesOn : STALL.begins)) return undefined
  return decided(turn, 'NO_INFORMATION', {
    ...withoutTrial(state),
    pending: NOTHING,
    delay: STALL.passes * state.lasting,
  })
}

/** Files that should have ended where none did, and after how many times that a file lasts those are gone that hung. */
const STALL = { begins: 10, goesOn: 3, passes: 3 }

function takingEffect(turn: Turn): OptimizerDecision | undefined {
  const { state, window } = turn
  if (state.delay === 0) return undefined
  return decided(turn, 'TAKING_EFFECT', { ...state, delay: Math.max(0, state.delay - window.length) })
}

/** Where less ran than might, nothing is learnt and nothing forgotten. */
function belowLimit(turn: Turn): OptimizerDecision | undefined {
  const { state, window, from } = turn
  if (window.active >= from * OPTIMIZER.used || window.full >= OPTIMIZER.full) return undefined
  return decided(turn, window.active === 0 ? 'NO_INFORMATION' : 'DEMAND_BELOW_LIMIT', withoutTrial(state))
}

function tooFew(turn: Turn): OptimizerDecision | undefined {
  const { state, seen } = turn
  if (seen.files > 0 && seen.files + seen.failures >= OPTIMIZER.files) return undefined
  return decided(turn, 'TOO_FEW_FILES', { ...state, pending: seen })
}
