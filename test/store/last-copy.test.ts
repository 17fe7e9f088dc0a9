import fc from 'fast-check'
import { environment } from '../../shared/runtime/environment.ts'
import { databases } from './databases.ts'
import { deed, STORAGES } from './disk-deeds.ts'
import { Disks } from './disks.ts'

const RUNS = Number(environment.LAST_COPY_RUNS ?? 40)

for (const { name, open } of databases) {
  describe(`the last good copy on ${name}`, () => {
    it('is never deleted while a rule asks for its file, or nobody has let go of it', async function () {
      this.timeout(RUNS * 20_000)
      const { LAST_COPY_SEED } = environment
      await fc.assert(
        fc.asyncProperty(fc.array(deed, { minLength: 10, maxLength: 40, size: 'max' }), async deeds => {
          const { db, drop } = await open()
          try {
            const disks = await Disks.begin(db, STORAGES)
            for (const one of deeds) await disks.play(one)
          } finally {
            await drop()
          }
        }),
        {
          numRuns: RUNS,
          endOnFailure: environment.MODEL_SHRINK === undefined,
          ...(LAST_COPY_SEED === undefined ? {} : { seed: Number(LAST_COPY_SEED) }),
        },
      )
    })
  })
}
