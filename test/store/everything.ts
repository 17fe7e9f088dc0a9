import { handOut, putPool } from '../../server/accounts/account-pool-store.ts'
import { putLimit } from '../../server/accounts/limit-store.ts'
import { insertMapping } from '../../server/accounts/mapping-store.ts'
import { putPermissions } from '../../server/accounts/permission-store.ts'
import { mapIdentity } from '../../server/accounts/store.ts'
import { planFiles } from '../../server/catalogue/upload-store.ts'
import type { Database } from '../../server/database/database.ts'
import { query } from '../../server/database/sql.ts'
import { insertImport, insertImportProblems } from '../../server/imports/store.ts'
import { insertEvents } from '../../server/rules/event-store.ts'
import { reevaluateRules } from '../../server/rules/reevaluate.ts'
import { insertProblems } from '../../server/rules/store.ts'
import { putAttribute, putProtocol } from '../../server/storages/store.ts'
import { addToTask } from '../../server/tasks/store.ts'
import { writeLedger } from '../../server/tokens/lease-store.ts'
import { putWeight } from '../../server/transfers/activity-store.ts'
import { judgeStorages } from '../../server/transfers/health-store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { grantPermit } from '../../server/transfers/permits.ts'
import { insertSession } from '../../server/transfers/session-store.ts'
import { ensureSourceSet } from '../../server/transfers/source-set-store.ts'
import { drain } from '../../server/transfers/worker-store.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { FAILURE, World } from './world.ts'

const POOL = { issuer: 'https://issuer.example.org', client: 'pool' }
/** Not the one whose sessions the world opens. */
const DRAINED = 'drained'
const WORDS = 'Überlast: „kein Platz“ 🗄\n\'quoted\' "twice" \\u0000 $1 :name ?'

/** Leaves rows in every table: transfers that are queued, held, done, failed and wait, and whatever comes with them. */
export async function everything(db: Database): Promise<World> {
  const world = await World.make(db, { rses: ['A', 'B', 'C'] })
  await world.dataset('d', 8, 'A')
  await world.attach('d', 'd/sub/in-a-directory-below', 'A')
  await world.dataset('upload', 2, 'C')
  await world.container('all', ['s:d'])
  const rule = await world.addRule('d', 'B', 1)
  await world.evaluate()
  await world.grantAll()
  const session = await world.openSession()
  const held = await world.claim(session, 5)
  const outcome = (index: number, result: 'done' | 'failed') => ({
    transfer: held[index]?.id ?? 0,
    fence: held[index]?.fence ?? 0,
    result,
    mode: 'pull' as const,
    durationMs: 10,
    endedMsAgo: 0,
    bytes: 5,
    cleaned: false,
    left: 'own' as const,
    ...(result === 'failed' ? { error: { ...FAILURE, message: WORDS } } : {}),
  })
  await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, [outcome(0, 'done'), outcome(1, 'failed')])
  // Not evaluated: a part of its rule is still to be looked at.
  const dataset = { id: await world.didId('d'), type: 'DATASET' }
  await world.db.write(executor => reevaluateRules(executor, dataset, []))
  // Likewise: the rule has not let go of it.
  await world.detach('d', 'd/sub/in-a-directory-below')
  await aside(world, { rule, session, transfer: held[2]?.id ?? 0, fence: held[2]?.fence ?? 0 })
  return world
}

/** The tables that no transfer needs. */
async function aside(
  world: World,
  { rule, session, transfer, fence }: { rule: number; session: number; transfer: number; fence: number },
): Promise<void> {
  const { id: rseId } = await world.rse('C')
  const { voId, accountId } = world
  const now = world.clock.now()
  const key = (sql: string): Promise<number> => world.number(`SELECT min(id) AS n FROM ${sql}`)
  const grantId = await key('grants')
  const [directoryId, datasetId] = [await key('directories'), await world.didId('d')]
  const files = [await world.didId('upload.f0')]
  await world.db.write(async e => {
    await grantPermit(e, { sessionId: session, transfer, fence, written: true }, now)
    await mapIdentity(e, { issuer: POOL.issuer, subject: 'somebody' }, accountId, false)
    const mapping = {
      issuer: POOL.issuer,
      claim: 'group',
      pattern: '/exp/**',
      voId,
      target: 'pool',
      name: 'exp',
    } as const
    await insertMapping(e, mapping, undefined, now)
    await putPool(e, { voId, name: 'exp', size: 1 }, now)
    await handOut(e, { voId, name: 'exp' }, { issuer: POOL.issuer, subject: WORDS }, now)
    const permissions = { may_write: true, may_rule: false, may_manage: true }
    await putPermissions(e, { scopeId: await key('scopes'), accountId, ...permissions })
    await putAttribute(e, rseId, 'tier', 2)
    await insertEvents(e, [{ rule_id: rule, event: 'updated', actor: WORDS, details: { comment: WORDS } }], now)
    await putLimit(e, { voId, accountId, expression: 'A|B', bytes: 1_000_000 }, now)
    const protocol = {
      url: 'https://c.example.org',
      priority: 1,
      canPull: true,
      canPush: false,
      freshConnections: true,
      macaroons: true,
    }
    await putProtocol(e, rseId, { ...protocol, redirectHosts: ['pool.example.org'] })
    const problem = { file_id: files[0] ?? 0, rse_id: rseId, code: 'PATH_TAKEN', message: WORDS }
    await insertProblems(e, rule, [problem])
    await writeLedger(e, { grantId, step: 'mint', outcome: 'ok', expiresAt: now, sessionId: null }, now)
    await insertSession(e, POOL, { worker: DRAINED, publicJwk: '{}', expiresAt: now }, now)
    await drain(e, { ...POOL, worker: DRAINED }, now)
    await planFiles(e, { rseId, accountId, fileIds: files, expiresAt: now + 1, replace: false }, now)
    const job = { voId, rseId, directoryId, datasetId, accountId, grantId, checksum: 'storage' } as const
    const importId = await insertImport(e, job, now)
    await insertImportProblems(e, importId, [{ path: WORDS, code: 'NAME_INVALID', message: WORDS }])
    const answer = { identity: 'somebody', key: 'k', request: 'r', answer: WORDS, now }
    await query(e, 'INSERT INTO idempotency_keys VALUES (:identity, :key, :request, :answer, :now)', answer)
    const fault = { scope: 'SOURCE', phase: 'TRANSFER', code: 'CONNECT_FAILED', message: WORDS }
    const subject = { linkId: await key('links'), voId, destinationId: rseId, sessionId: session }
    const attempt = { ...subject, mode: 'pull', outcome: 'failed', claimedAt: now, endedAt: now, again: false }
    const full = { ...fault, scope: 'DESTINATION', code: 'DESTINATION_FULL' }
    const failing = { links: new Set<string>(), destinations: new Set<string>() }
    await judgeStorages(
      e,
      [
        { ...attempt, error: fault },
        { ...attempt, error: full },
      ],
      failing,
      now,
    )
    const linkId = await key('links')
    await putWeight(e, { voId, activity: 'Export', weight: 3 })
    await query(e, "INSERT INTO link_tuning VALUES (:linkId, :now, '{}', 'push', 20)", { linkId, now })
    const decision = { linkId, now, sentence: WORDS }
    await query(
      e,
      `INSERT INTO link_decisions (link_id, at, subject, before, after, code, figures, sentence)
       VALUES (:linkId, :now, 'limit', '10', '13', 'PROBE_UP', '{}', :sentence)`,
      decision,
    )
    const hop = { transfer, replica: await key('replicas'), now }
    await query(
      e,
      `INSERT INTO hops (transfer_id, replica_id, carrier_id, created_at, expires_at, look_at)
       VALUES (:transfer, :replica, :transfer, :now, :now, NULL)`,
      hop,
    )
    const replica = await key('replicas')
    await addToTask(e, { kind: 'recall', vo_id: voId, rse_id: rseId }, [replica], now)
    const found = { replica, now, message: WORDS }
    await query(
      e,
      "INSERT INTO replica_faults (replica_id, at, code, message) VALUES (:replica, :now, 'FILE_LOST', :message)",
      found,
    )
    const replan = { now, rseId, message: WORDS }
    await query(
      e,
      "INSERT INTO replans (at, source_rse_id, code, message) VALUES (:now, :rseId, 'SOURCE_HELD', :message)",
      replan,
    )
    await query(e, "UPDATE transfers SET replan_id = 1 WHERE state = 'QUEUED'")
    await ensureSourceSet(e, voId, 'A|C', [await key('rses'), rseId])
    await query(e, "UPDATE transfers SET source_set_id = 1 WHERE state = 'QUEUED'")
    // One that refers to a later row of its own table.
    const paths = `(1000, ${rseId}, '/data/top/below', 1001), (1001, ${rseId}, '/data/top', NULL)`
    await query(e, 'PRAGMA defer_foreign_keys = ON')
    await query(e, `INSERT INTO directories (id, rse_id, path, top_id) VALUES ${paths}`)
    await query(e, `INSERT INTO directory_scopes (directory_id, scope_id) SELECT 1001, min(id) FROM scopes`)
    await query(e, "INSERT INTO deleted_paths (directory_id, name, at) VALUES (1000, 'f', :now)", { now })
    // The highest key of a table is not of a row any more.
    await query(e, `INSERT INTO scopes (id, vo_id, name) VALUES (5000, ${voId}, 'gone')`)
    await query(e, 'DELETE FROM scopes WHERE id = 5000')
  })
}
