/** A decision between pull and push in a sentence. Pure. */
import type { Mode, ModeCode, ModeDecision, ModeSums } from './modes.ts'

/** E.g. "pull -> push: push takes 23.1 % less time for a file (pull 412 files, push 51)". `before`: what was preferred. */
export function modeSentenceOf(before: Mode, { preferred, code, figures }: ModeDecision): string {
  const other: Mode = before === 'pull' ? 'push' : 'pull'
  const change = before === preferred ? preferred : `${before} -> ${preferred}`
  return `${change}: ${REASONS[code]({ own: before, other, figures })} (${counted('pull', figures.pull)}, ${counted('push', figures.push)})`
}

interface Compared {
  readonly own: Mode
  readonly other: Mode
  readonly figures: ModeDecision['figures']
}

const REASONS: Readonly<Record<ModeCode, (compared: Compared) => string>> = {
  OTHER_UNTRIED: ({ other }) => `${other} was not tried yet`,
  TOO_FEW_FILES: () => 'too few files to compare the two',
  OTHER_FASTER: ({ other, figures }) => `${other} takes ${percent(figures.faster)} less time for a file`,
  NOT_FASTER: ({ other, figures }) =>
    (figures.faster ?? 0) > 0
      ? `${other} takes ${percent(figures.faster)} less time for a file, which is too little or may be chance`
      : `${other} is not faster`,
  PREFERRED_FAILS: ({ own, other }) => `${own} fails, and ${other} does not`,
  OTHER_FAILS: ({ other }) => `${other} fails`,
}

/** `faster`: a logarithm. */
function percent(faster = 0): string {
  return `${(-Math.expm1(-faster) * 100).toFixed(1)} %`
}

function counted(mode: Mode, { files, failures }: ModeSums): string {
  const failed = Math.round(failures)
  return `${mode} ${Math.round(files)} files${failed === 0 ? '' : `, ${failed} failures`}`
}
