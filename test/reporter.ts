import { reporters } from 'mocha'

export interface Counts {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  /** What failed, with its error, once more for the end of it all: a long log is often kept by its tail alone. */
  readonly failures: readonly string[]
}

/** Mocha's Spec, whose closing line is the runner's own counts: `12 passed, 0 failed, 0 skipped`. `test/run.ts` gets them too. */
export default class CountingReporter extends reporters.Spec {
  override epilogue(): void {
    super.epilogue()
    const { passes: passed, failures: failed, pending: skipped } = this.stats
    reporters.Base.consoleLog(`${passed} passed, ${failed} failed, ${skipped} skipped`)
    const failures = this.failures.map(test => `${test.fullTitle()}\n${test.err?.stack ?? 'without an error'}`)
    process.send?.({ passed, failed, skipped, failures } satisfies Counts)
  }
}
