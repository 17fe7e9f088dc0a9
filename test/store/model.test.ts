import fc from 'fast-check'
import { environment } from '../../shared/runtime/environment.ts'
import { databases } from './databases.ts'
import { action } from './model-deeds.ts'
import { Story } from './model-story.ts'

/**
 * `MODEL_RUNS`: how many stories, others each time; `MODEL_SEED` and `MODEL_PATH`, as a failure tells them: the one that failed again;
 * `MODEL_SHRINK` looks for a shorter one.
 */
const RUNS = Number(environment.MODEL_RUNS ?? 12)
const SECONDS_EACH = 20
const SHRINK_MS = 300_000

for (const { name, open } of databases) {
  describe(`rules beside a model on ${name}`, () => {
    it('locks, counters, usage and states are the model’s at every step', async function () {
      this.timeout(RUNS * SECONDS_EACH * 1_000 + SHRINK_MS)
      const { MODEL_SEED, MODEL_PATH } = environment
      await fc.assert(
        fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 30, size: 'max' }), async actions => {
          const { db, drop } = await open()
          try {
            const story = await Story.begin(db)
            for (const step of actions) await story.play(step)
            await story.end()
          } finally {
            await drop()
          }
        }),
        {
          numRuns: RUNS,
          interruptAfterTimeLimit: RUNS * SECONDS_EACH * 1_000 + SHRINK_MS / 2,
          endOnFailure: environment.MODEL_SHRINK === undefined,
          ...(MODEL_SEED === undefined ? {} : { seed: Number(MODEL_SEED) }),
          ...(MODEL_PATH === undefined ? {} : { path: MODEL_PATH }),
        },
      )
    })
  })
}
