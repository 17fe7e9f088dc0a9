import fc from 'fast-check'
import { environment } from '../../shared/runtime/environment.ts'
import { actions } from './anything.ts'
import { Story } from './story.ts'

/** `ANYTHING_RUNS`: how many lives, some 3 s each; `ANYTHING_SEED` and `ANYTHING_PATH` play one again that failed. */
const RUNS = Number(environment.ANYTHING_RUNS ?? 12)
const SECONDS_EACH = 60
/** That one takes which does not come to rest. */
const RESTLESS_MS = 240_000
/** Each try is a whole life again, and what other threads do differs each time. */
const SHRINK_RUNS_MS = 180_000

describe('anything that happens to storages, workers and the way between them', () => {
  it('ends verified or with a reason, loses no verified file and touches no one else’s', async function () {
    this.timeout(RUNS * SECONDS_EACH * 1_000 + RESTLESS_MS + SHRINK_RUNS_MS)
    const { ANYTHING_SEED, ANYTHING_PATH } = environment
    await fc.assert(
      fc.asyncProperty(actions, async steps => {
        const story = await Story.begin()
        try {
          for (const [i, step] of steps.entries()) {
            await story.play(step)
            mustHold(await story.broken(), `after step ${i}, ${step.do}`)
          }
          await story.heal()
          mustHold(await story.rest(), 'in the end')
        } finally {
          await story.end()
        }
      }),
      {
        numRuns: RUNS,
        ...(ANYTHING_SEED === undefined ? {} : { seed: Number(ANYTHING_SEED) }),
        ...(ANYTHING_PATH === undefined ? {} : { path: ANYTHING_PATH }),
        endOnFailure: environment.ANYTHING_SHRINK === undefined,
      },
    )
  })
})

/** All of it is told, not only that something is wrong. */
function mustHold(broken: readonly string[], when: string): void {
  if (broken.length > 0) throw new Error(`${when}:\n${broken.join('\n')}`)
}
