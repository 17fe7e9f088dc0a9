import { expect } from 'chai'
import type { StorageTask } from '../../shared/contract/routes/worker.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { systemClock as clock } from '../../shared/runtime/clock.ts'
import { transferFailure } from '../../shared/storage/classify.ts'
import { StorageError, type TapeClient } from '../../shared/storage/types.ts'
import { StorageAccess } from '../../worker/access.ts'
import { deleteFiles } from '../../worker/delete.ts'
import { momentOf } from '../../worker/remove.ts'
import type { Storages } from '../../worker/storages.ts'
import { recallFiles } from '../../worker/tape.ts'
import type { TaskWorkshop } from '../../worker/task.ts'
import type { GrantTokens } from '../../worker/tokens.ts'

const STORAGE: StorageTask['storage'] = {
  rse: 'A',
  canPull: true,
  canPush: true,
  checksum: 'adler32',
  checksumPolicy: 'destination',
  watchdogs: {},
  freshConnections: false,
  macaroons: false,
  redirectHosts: [],
}

/** Everything is tried with the first token until it is refused. */
const tokens = (): GrantTokens => {
  let generation = 1
  const held = { tokenFor: async () => new Secret(`token-${generation}`), forget: () => void generation++ }
  return held as unknown as GrantTokens
}

const refused = (code: 'TOKEN_REFUSED' | 'STORAGE_BUSY' | 'TOO_MANY_REQUESTS', retryAfterSeconds?: number) =>
  new StorageError(
    transferFailure(code, code === 'TOKEN_REFUSED' ? 'TOKEN' : 'DESTINATION', 'PREPARATION', 'words', {
      retryAfterSeconds,
    }),
  )

const workshopAt = (client: object): TaskWorkshop => {
  const { signal } = new AbortController()
  const storage = { head: async () => ({ exists: false }), ...client }
  const storages = { client: () => storage } as unknown as Storages
  const access = new StorageAccess({ tokens: tokens(), clock, signal })
  return { access, storages, clock, signal, askedAt: momentOf(clock) }
}

const taskOf = (kind: StorageTask['kind'], wants: readonly StorageTask['files'][number]['want'][]): StorageTask => ({
  task: 1,
  fence: 1,
  kind,
  storage: STORAGE,
  grant: 1,
  seconds: 60,
  request: 'r1',
  last: false,
  files: wants.map((want, i) => ({ file: i, url: `https://a.example.org/exp/f${i}`, want })),
})

describe('a task to delete', () => {
  const twenty = taskOf(
    'delete',
    Array.from({ length: 20 }, () => 'delete'),
  )
  const run = async (answer: (sent: number) => StorageError | undefined) => {
    let sent = 0
    const remove = async () => {
      sent += 1
      const error = answer(sent)
      await clock.sleep(1)
      if (error !== undefined) throw error
      return { existed: true }
    }
    const done = await deleteFiles(twenty, workshopAt({ remove }))
    return { done, sent }
  }

  it('removes all of them', async () => {
    const { done } = await run(() => undefined)
    expect(done.results.filter(({ result }) => result === 'done')).to.have.length(20)
    expect(done.error).to.equal(undefined)
  })

  it('shows a token that a DELETE refuses twice at most: dCache blocks after the third', async () => {
    const { done, sent } = await run(() => refused('TOKEN_REFUSED'))
    expect(done.error).to.include({ code: 'TOKEN_REFUSED', scope: 'TOKEN' })
    expect([sent, done.results.length]).to.deep.equal([2, 1])
  })

  for (const error of [refused('TOO_MANY_REQUESTS'), refused('STORAGE_BUSY', 30)]) {
    it(`ends with ${error.code}: nothing more is sent, and the time that was asked for is told`, async () => {
      const { done, sent } = await run(() => error)
      expect(done.error).to.equal(error.failure)
      expect(sent).to.equal(1)
    })
  }
})

describe('a step of a recall', () => {
  it('sends again what was refused, and nothing else: a second request would be nobody`s', async () => {
    const sent: string[] = []
    const once = (name: string, answer: object) => async (_url: string, token: Secret) => {
      sent.push(`${name} ${token.reveal()}`)
      if (name === 'poll' && token.reveal() === 'token-1') throw refused('TOKEN_REFUSED')
      return answer
    }
    const tape = {
      stage: once('stage', { requestId: 'r2', location: undefined }),
      poll: once('poll', { known: true, files: new Map([['/exp/f1', { kind: 'staged' }]]) }),
      release: once('release', { known: true }),
      cancel: once('cancel', { known: true }),
    } as unknown as TapeClient
    const done = await recallFiles(taskOf('recall', ['stage', 'poll', 'release', 'cancel']), workshopAt({ tape }))
    expect(done.error).to.equal(undefined)
    expect(sent).to.deep.equal(['stage token-1', 'poll token-1', 'poll token-2', 'release token-2', 'cancel token-2'])
    expect(done.request).to.equal('r2')
    expect(done.results.map(({ file, result }) => `${file} ${result}`)).to.deep.equal([
      '0 asked',
      '1 online',
      '2 done',
      '3 done',
    ])
  })
})
