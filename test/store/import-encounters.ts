import { ensureDirectories } from '../../server/catalogue/replica-store.ts'
import { cancelImport, claimImports, insertImport, resumeImport } from '../../server/imports/store.ts'
import { type FoundPart, takeFoundPart } from '../../server/imports/take.ts'
import { ensureGrant } from '../../server/tokens/grant-store.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import type { Encounter } from './encounters.ts'
import { FAILURE, type World } from './world.ts'

/** Where the layout has the files of the dataset d. */
const PATH = '/data/s/d'

/** Imports into the dataset d at B, each held by a session of its own: import 1 by session 1, ... */
async function importing(world: World, count = 1): Promise<void> {
  const { id: rseId } = await world.rse('B')
  for (let i = 0; i < count; i += 1) {
    const sessionId = await world.openSession()
    await world.db.write(async e => {
      const directories = await ensureDirectories(e, rseId, [{ path: PATH, top: PATH }])
      const key = { issuerId: world.issuerId, client: 'server', voId: world.voId, rseId, audience: 'a' } as const
      const grantId = await ensureGrant(e, { ...key, purpose: 'list', scopes: ['storage.read:/'] }, 0)
      const datasetId = await world.didId('d')
      const directoryId = directories.get(PATH)?.id ?? 0
      const { voId, accountId } = world
      await insertImport(e, { voId, rseId, directoryId, datasetId, accountId, grantId, checksum: 'storage' }, 0)
      await claimImports(e, { sessionId }, 1, world.clock.now())
    })
  }
}

/** Import `id`, which has one directory, is told this of it by its session. What the server refuses is nothing to the worker. */
async function tell(world: World, id: number, more: Partial<FoundPart>, isLast = true): Promise<void> {
  const [directory] = await world.rows<{ id: number }>(
    'SELECT id FROM import_directories WHERE import_id = :id ORDER BY id LIMIT 1',
    { id },
  )
  const place = directory?.id ?? 0
  const nothing = { files: [], directories: [], leftOut: [], listed: isLast ? [place] : [] }
  const part = { sessionId: id, fence: 1, part: 1, ...nothing, ...more }
  await takeFoundPart(world.context, DEFAULT_RETRY_POLICY, id, part).catch((error: unknown) => {
    if (!(error instanceof WaybillError)) throw error
  })
}

const FILES = { files: ['a', 'b', 'c'].map(path => ({ path, bytes: 5, adler32: '00620062' })) }
const OTHERS = { files: ['b', 'c', 'd'].map(path => ({ path, bytes: 6, adler32: '00620062' })) }
const ends = (world: World): Promise<unknown> =>
  world.db.write(e => endSession(e, 1, world.clock.now(), world.clock.now()))
const cancel = (world: World): Promise<unknown> => world.db.write(e => cancelImport(e, 1, world.clock.now()))
const resume = (world: World): Promise<unknown> => world.db.write(e => resumeImport(e, 1, world.clock.now()))

async function begin(world: World): Promise<void> {
  await world.dataset('d', 2, 'A')
  await importing(world)
}

async function two(world: World): Promise<void> {
  await world.dataset('d', 2, 'A')
  await importing(world, 2)
}

/** Each found file is counted once, as taken over or as left out. */
async function miscounted(world: World): Promise<string | undefined> {
  const wrong = await world.rows(
    `SELECT imports.id FROM imports WHERE state = 'DONE' AND files + left_out <> 3
     UNION ALL SELECT id FROM imports WHERE state <> 'DONE' AND part > 0 AND files + left_out NOT IN (0, 3)`,
  )
  const extra = await world.number("SELECT count(*) AS n FROM dids WHERE name LIKE 'd/%'")
  return wrong.length === 0 && extra <= 4 ? undefined : 'a part was counted other than once'
}

export const IMPORT_ENCOUNTERS: Readonly<Record<string, Encounter>> = {
  'a session ends whose part of an import is just taken': {
    begin,
    stopped: world => tell(world, 1, FILES),
    other: ends,
    broken: miscounted,
  },
  'a part of an import comes from a session that is just ended': {
    begin,
    stopped: ends,
    other: world => tell(world, 1, FILES),
    broken: miscounted,
  },
  'a part of an import is handed in twice': {
    begin,
    stopped: world => tell(world, 1, FILES),
    other: world => tell(world, 1, FILES),
    broken: miscounted,
  },
  'an import is cancelled whose last part is just taken': {
    begin,
    stopped: world => tell(world, 1, FILES),
    other: cancel,
    broken: miscounted,
  },
  'an import is resumed whose storage is just told to be away': {
    begin,
    stopped: world => tell(world, 1, { error: { ...FAILURE, scope: 'SOURCE' } }, false),
    other: resume,
  },
  'two imports find the same, and do not agree': {
    begin: two,
    stopped: world => tell(world, 1, FILES),
    other: world => tell(world, 2, OTHERS),
    broken: miscounted,
  },
  'an import finds what a rule is just bringing there': {
    async begin(world) {
      await world.dataset('d', 2, 'A')
      await world.attach('d', 'd/a', 'A')
      await world.addRule('d', 'B', 1)
      await importing(world)
    },
    stopped: world => tell(world, 1, { files: [{ path: 'a', bytes: 7 }] }),
    other: world => world.evaluate(),
    afterwards: world => world.evaluate(),
  },
  'a rule is just brought what an import finds there': {
    async begin(world) {
      await world.dataset('d', 2, 'A')
      await world.attach('d', 'd/a', 'A')
      await world.addRule('d', 'B', 1)
      await importing(world)
    },
    stopped: world => world.evaluate(),
    other: world => tell(world, 1, { files: [{ path: 'a', bytes: 7 }] }),
    afterwards: world => world.evaluate(),
  },
}
