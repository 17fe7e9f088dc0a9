/** A decision of the optimizer in a sentence, for whoever asks why a link runs so many. Pure. */
import type { Comparison, OptimizerCode, OptimizerDecision, OptimizerFigures } from './optimizer-decision.ts'

/** E.g. "62 -> 66: 62 carried 5.1 % more than 58". */
export function sentenceOf({ from, limit, code, figures }: OptimizerDecision): string {
  const change = from === limit ? `${limit}` : `${from} -> ${limit}`
  return `${change}: ${REASONS[code](figures)}`
}

const REASONS: Readonly<Record<OptimizerCode, (figures: OptimizerFigures) => string>> = {
  INCREASE_PAYS: figures => `${comparison(figures)}: it pays`,
  NO_GAIN: figures => `${comparison(figures)}: more does not pay`,
  LESS_SUFFICES: figures => `${comparison(figures)}: less suffices`,
  LESS_CARRIES_LESS: figures => `${comparison(figures)}: less carries less`,
  UNDECIDED: figures => `${comparison(figures)} so far, which may be chance`,
  PROBE_UP: () => 'whether more pays is tried',
  PROBE_DOWN: () => 'whether less suffices is tried',
  MEASURING: figures => `measured at ${figures.learnt} before the next trial: ${rates(figures)}`,
  AT_MAXIMUM: figures => `the link and its storages allow ${figures.maximum}`,
  ABOVE_MAXIMUM: figures =>
    `the link and its storages allow ${figures.maximum} now${figures.learnt > figures.maximum ? `; ${figures.learnt} is kept in mind` : ''}`,
  MAXIMUM_RAISED: figures => `the link and its storages allow ${figures.maximum} now, and ${figures.learnt} was learnt`,
  THROUGHPUT_FELL: figures => `throughput ${changed(figures.compared)} at the same limit`,
  THROUGHPUT_ROSE: figures => `throughput ${changed(figures.compared)} at the same limit`,
  OTHER_SIZES: figures => `the files are of other sizes, ${meanSize(figures)} on average: it is measured anew`,
  FAILURES: failures,
  OUTAGE: figures => `${failures(figures)}; ${figures.learnt} is kept in mind`,
  AFTER_OUTAGE: figures => `${figures.files} files were copied again, on the way back to ${figures.learnt}`,
  OVERLOADED: figures => `${failures(figures)} again, and ${figures.learnt} at a time did not`,
  DEMAND_BELOW_LIMIT: figures =>
    `${fixed(figures.active)} ran on average and ${figures.queued} waited: nothing to learn from`,
  TOO_FEW_FILES: figures => `${figures.files} files in ${fixed(figures.seconds)} s are too few to judge by`,
  TAKING_EFFECT: () => 'what ends now began at another limit, or hung',
  NO_INFORMATION: () => 'nothing ended',
}

function comparison({ compared }: OptimizerFigures): string {
  if (compared === undefined) return 'nothing was compared'
  const [learnt, trial] = compared.limits
  return `${trial} carried ${percent(compared.gain)} ${compared.gain < 0 ? 'less' : 'more'} than ${learnt}`
}

function changed(compared: Comparison | undefined): string {
  if (compared === undefined) return 'changed'
  return `${compared.gain < 0 ? 'fell' : 'rose'} by ${percent(compared.gain)}`
}

function percent(gain: number): string {
  return `${(Math.abs(Math.expm1(gain)) * 100).toFixed(1)} %`
}

function failures({ failures, files }: OptimizerFigures): string {
  return `${failures} of ${files + failures} attempts failed`
}

function rates({ files, bytes, seconds }: OptimizerFigures): string {
  return `${fixed(files / seconds)} files/s, ${fixed(bytes / seconds / 1e6)} MB/s`
}

function meanSize({ bytes, files }: OptimizerFigures): string {
  return `${fixed(bytes / Math.max(1, files) / 1e6)} MB`
}

/** Three digits are enough to read. */
function fixed(value: number): string {
  return `${Number(value.toPrecision(3))}`
}
