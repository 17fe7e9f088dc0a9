/** What a window says of a link's limit, where there is enough of it. Pure. */
import {
  type Comparison,
  decided,
  OPTIMIZER,
  type OptimizerDecision,
  type OptimizerState,
  type Turn,
  withoutTrial,
} from './optimizer-decision.ts'
import {
  errorOf,
  gainOf,
  isOtherWork,
  joined,
  type Level,
  lastingOf,
  levelOf,
  MEMORY,
  NO_LEVEL,
  NOTHING,
  successShare,
  withDeviation,
  withScatter,
} from './throughput.ts'

/** A window in which the limit was used and enough ended. */
export function judge(turn: Turn): OptimizerDecision {
  const state = { ...turn.state, pending: NOTHING, lasting: lasting(turn), worked: 0, relapses: 0 }
  const level = levelOf(turn.seen)
  if (isOtherWork(state.atLearnt, level)) return startAnew(turn, state, level)
  return state.trial > 0 ? onTrial(turn, state, level) : atLearnt(turn, state, level)
}

function lasting({ state, seen }: Turn): number {
  const now = lastingOf(seen)
  return state.lasting === 0 ? now : state.lasting + (now - state.lasting) / MEMORY
}

/** The limit is kept, but what it carried of other files is no measure for these. */
function startAnew(turn: Turn, state: OptimizerState, level: Level): OptimizerDecision {
  const fresh = { atLearnt: turn.from === state.learnt ? level : NO_LEVEL, odd: NO_LEVEL, ...WIDE }
  return decided(turn, 'OTHER_SIZES', { ...withoutTrial(state), ...fresh })
}

/** After a change: large steps, and soon. */
export const WIDE = { fruitless: 0, rested: 0, step: OPTIMIZER.step.most }

function onTrial(turn: Turn, before: OptimizerState, level: Level): OptimizerDecision {
  const state = withWindow(before, level)
  const gain = gainOf(state.atLearnt, state.atTrial, state.sizeEffect)
  const compared = { limits: [state.learnt, state.trial], gain, windows: state.atTrial.count } as const
  const margin = gain - OPTIMIZER.pays * Math.log(state.trial / state.learnt)
  const error = errorOf(state.noise, state.atLearnt, state.atTrial)
  const isLast = state.atTrial.count >= OPTIMIZER.trial
  // In the end more must have been shown to pay; of less it is enough that nothing speaks against it.
  const proof = !isLast ? error : state.direction > 0 ? error / 2 : 0
  if (margin > proof) return accepted(turn, state, compared)
  if (isLast || margin < -error) return refused(turn, state, compared, margin)
  return decided(turn, 'UNDECIDED', { ...state, between: !state.between }, compared)
}

/** Both limits in turn, and what was before the trial counts little: what changes with time changes both. */
function withWindow(state: OptimizerState, level: Level): OptimizerState {
  const atLearnt = { ...state.atLearnt, count: Math.min(state.atLearnt.count, OPTIMIZER.fresh) }
  if (state.between) return { ...state, atLearnt: joined(atLearnt, level) }
  return { ...state, atLearnt, atTrial: joined(state.atTrial, level) }
}

/** It is the limit now, and the next step in the same direction is tried at once. */
function accepted(turn: Turn, state: OptimizerState, compared: Comparison): OptimizerDecision {
  const isMore = state.direction > 0
  const learnt = {
    learnt: state.trial,
    atLearnt: isMore ? inProportion(state, compared.gain) : state.atTrial,
    step: Math.min(OPTIMIZER.step.most, state.step * OPTIMIZER.step.grows),
    fruitless: 0,
    rested: 0,
  }
  const next = { ...withoutTrial(state), ...learnt }
  const trial = { ...next, trial: trialOf(turn, next) }
  return decided(turn, isMore ? 'INCREASE_PAYS' : 'LESS_SUFFICES', trial, compared)
}

/** No link carries more than in proportion: what is beyond it is chance, and would be asked of the next step too. */
function inProportion({ learnt, trial, atLearnt, atTrial }: OptimizerState, gain: number): Level {
  const excess = gain - Math.log(trial / learnt)
  if (excess <= 0) return atTrial
  const count = atLearnt.count + atTrial.count
  return { ...atTrial, pace: atTrial.pace - (excess * atLearnt.count) / count, count: Math.min(MEMORY, count) }
}

/**
 * Back to what was learnt. Where it did seem to pay the same is tried again, else the other direction by a smaller
 * step.
 */
function refused(turn: Turn, state: OptimizerState, compared: Comparison, margin: number): OptimizerDecision {
  const back = trialLeft(state)
  const next = margin > 0 ? { ...back, step: state.step, direction: state.direction } : back
  return decided(turn, state.direction > 0 ? 'NO_GAIN' : 'LESS_CARRIES_LESS', next, compared)
}

/** Back to what was learnt; next is the other direction, by a smaller step. */
export function trialLeft(state: OptimizerState): OptimizerState {
  const step = Math.max(OPTIMIZER.step.least, state.step * OPTIMIZER.step.shrinks)
  const direction = state.direction > 0 ? -1 : 1
  return { ...withoutTrial(state), fruitless: state.fruitless + 1, rested: 0, step, direction }
}

function atLearnt(turn: Turn, before: OptimizerState, level: Level): OptimizerDecision {
  const first = { ...before, atLearnt: level, rested: before.rested + 1 }
  if (before.atLearnt.count === 0) return afterRest(turn, first)
  const gain = gainOf(before.atLearnt, level, before.sizeEffect)
  const state = { ...before, noise: withScatter(before.noise, gain, before.atLearnt.count) }
  if (Math.abs(gain) > OPTIMIZER.odd * errorOf(before.noise, before.atLearnt, level))
    return odd(turn, state, level, gain)
  return afterRest(turn, {
    ...state,
    atLearnt: joined(state.atLearnt, level),
    sizeEffect: withDeviation(state.sizeEffect, state.atLearnt, level),
    odd: NO_LEVEL,
    rested: state.rested + 1,
  })
}

/**
 * The second in a row, to the same side: the link carries less than before, or more, and so perhaps it should run less,
 * or more.
 */
function odd(turn: Turn, state: OptimizerState, level: Level, gain: number): OptimizerDecision {
  const isSecond = state.odd.count > 0 && gainOf(state.atLearnt, state.odd, state.sizeEffect) * gain > 0
  if (!isSecond) return decided(turn, 'MEASURING', { ...state, odd: level })
  const direction = gain > 0 ? (1 as const) : (-1 as const)
  const changed = { ...state, ...WIDE, direction, atLearnt: joined(state.odd, level), odd: NO_LEVEL }
  const compared = { limits: [state.learnt, state.learnt], gain, windows: 2 } as const
  const fell = isFailing(turn) ? 'FAILURES' : 'THROUGHPUT_FELL'
  const code = gain > 0 ? 'THROUGHPUT_ROSE' : fell
  return decided(turn, code, { ...changed, trial: trialOf(turn, changed) }, compared)
}

function isFailing({ seen }: Turn): boolean {
  return successShare(seen) < OPTIMIZER.failing
}

function afterRest(turn: Turn, state: OptimizerState): OptimizerDecision {
  const rest = OPTIMIZER.rests[Math.min(state.fruitless, OPTIMIZER.rests.length - 1)] ?? 1
  if (state.rested < rest) return decided(turn, state.learnt === turn.maximum ? 'AT_MAXIMUM' : 'MEASURING', state)
  const isLessTried = isFailing(turn) && state.learnt > 1
  const next = isLessTried ? { ...state, direction: -1 as const, step: OPTIMIZER.step.most } : withinRange(turn, state)
  const trial = trialOf(turn, next)
  if (trial === 0) return decided(turn, 'DEMAND_BELOW_LIMIT', state)
  const code = trial > state.learnt ? 'PROBE_UP' : isLessTried ? 'FAILURES' : 'PROBE_DOWN'
  return decided(turn, code, { ...next, trial })
}

function withinRange({ maximum }: Turn, state: OptimizerState): OptimizerState {
  if (state.learnt >= maximum) return { ...state, direction: -1 }
  return state.learnt === 1 ? { ...state, direction: 1 } : state
}

/**
 * The limit to try next. 0: none, for it is out of range, or what would wait at the learnt limit is less than that, and
 * would not fill a higher one.
 */
function trialOf({ from, maximum, seen }: Turn, { learnt, direction, step }: OptimizerState): number {
  const stepped = Math.round(learnt * Math.exp(direction * step))
  if (direction < 0) return Math.min(learnt - 1, stepped)
  const wouldWait = seen.queued + from - learnt
  if (learnt >= maximum || wouldWait < learnt) return 0
  return Math.min(maximum, Math.max(learnt + 1, stepped))
}
