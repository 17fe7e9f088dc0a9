import { reporters } from 'mocha'

/** Mocha's Spec, whose closing line is the runner's own counts: `12 passed, 0 failed, 0 skipped`. */
export default class CountingReporter extends reporters.Spec {
  override epilogue(): void {
    super.epilogue()
    const { passes, failures, pending } = this.stats
    reporters.Base.consoleLog(`${passes} passed, ${failures} failed, ${pending} skipped`)
  }
}
