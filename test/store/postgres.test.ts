import { expect } from 'chai'
import { openPostgres } from '../../server/database/postgres.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { type Postgres, sharedPostgres } from '../house/postgres.ts'
import { requireComponents } from '../interop/components.ts'

const PASSWORD = 'open-sesame-0123456789'

describe('PostgreSQL that wants a password', () => {
  let server: Postgres
  let url: string
  before(async function () {
    requireComponents(this, ['postgresql'])
    server = await sharedPostgres()
    url = await server.guarded(await server.createDatabase(), PASSWORD)
  })

  const open = (password?: string) =>
    openPostgres({
      kind: 'postgresql',
      url,
      connections: 2,
      ...(password === undefined ? {} : { password: new Secret(password) }),
    })

  it('gets the one that its file holds, also to hear other servers', async () => {
    const db = open(PASSWORD)
    await db.migrate()
    expect(await db.epoch()).to.equal(1)
    const words = db.notifications?.(() => undefined, systemClock, silentLogger)
    await words?.start()
    await words?.stop()
    await db.close()
  })

  for (const [what, password] of [
    ['another', 'wrong'],
    ['none', undefined],
  ] as const) {
    it(`refuses ${what}, and the error does not tell it`, async () => {
      const db = open(password)
      const error = await db.migrate().then(
        () => undefined,
        (thrown: unknown) => String(thrown),
      )
      await db.close()
      expect(error).to.match(/password/)
      expect(error).not.to.contain(PASSWORD)
      expect(error).not.to.contain('wrong')
    })
  }
})
