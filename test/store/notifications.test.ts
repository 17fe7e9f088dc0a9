import { expect } from 'chai'
import { openPostgres } from '../../server/database/postgres.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { sharedPostgres } from '../house/postgres.ts'
import { until } from '../house/until.ts'
import { requireComponents } from '../interop/components.ts'

describe('words between servers on one PostgreSQL', () => {
  it('reach all servers but the one that says them', async function () {
    requireComponents(this, ['postgresql'])
    const postgres = await sharedPostgres()
    const url = await postgres.createDatabase()
    const servers = [0, 1, 2].map(() => {
      const db = openPostgres({ kind: 'postgresql', url, connections: 2 })
      const heard: string[] = []
      const words = db.notifications?.(word => void heard.push(word), systemClock, silentLogger)
      if (words === undefined) throw new Error('no words')
      return { db, heard, words }
    })
    try {
      for (const { words } of servers) await words.start()
      const [first, second, third] = servers
      if (first === undefined || second === undefined || third === undefined) throw new Error('no servers')
      await until(
        async () => {
          first.words.say('queue')
          return [second.heard.length, third.heard.length]
        },
        heard => heard.every(count => count > 0),
      )
      expect(new Set([...second.heard, ...third.heard])).to.deep.equal(new Set(['queue']))
      expect(first.heard).to.deep.equal([])
    } finally {
      for (const { words, db } of servers) {
        await words.stop()
        await db.close()
      }
      await postgres.dropDatabase(url)
    }
  })
})
