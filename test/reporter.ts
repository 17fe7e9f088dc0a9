import { reporters } from 'mocha'

export interface Counts {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

/** Mocha's Spec, whose closing line is the runner's own counts: `12 passed, 0 failed, 0 skipped`. `test/run.ts` gets them too. */
export default class CountingReporter extends reporters.Spec {
  override epilogue(): void {
    super.epilogue()
    const { passes: passed, failures: failed, pending: skipped } = this.stats
    reporters.Base.consoleLog(`${passed} passed, ${failed} failed, ${skipped} skipped`)
    process.send?.({ passed, failed, skipped } satisfies Counts)
  }
}
