import { expect } from 'chai'
import type { StorageTask } from '../../shared/contract/routes/worker.ts'
import { Secret } from '../../shared/domain/secret.ts'
import type { ArchiveInfo, RecallState, TapeClient } from '../../shared/storage/types.ts'
import { located, recalled, recallFiles } from '../../worker/tape.ts'
import type { TaskWorkshop } from '../../worker/task.ts'

const LOST = 'FILE_LOST'

describe('what a storage says of a recall', () => {
  const rows: [RecallState | undefined, boolean, string, string?][] = [
    [{ kind: 'pending' }, false, 'pending'],
    [{ kind: 'unknown' }, false, 'pending'],
    [undefined, false, 'pending'],
    [{ kind: 'staged' }, false, 'online'],
    [{ kind: 'cancelled' }, false, 'failed', 'STAGING_FAILED'],
    [{ kind: 'failed', words: 'no drive' }, false, 'failed', 'STAGING_FAILED'],
    [{ kind: 'failed', words: 'no tape' }, true, 'failed', LOST],
  ]
  for (const [state, lost, result, code] of rows) {
    it(`${state?.kind ?? 'nothing'}${lost ? ', and that it is lost' : ''}: ${result}${code === undefined ? '' : ` ${code}`}`, () => {
      const told = recalled(1, state, lost)
      expect([told.result, told.error?.code]).to.deep.equal([result, code])
    })
  }
})

describe('what a storage says of where a copy is', () => {
  const rows: [ArchiveInfo, string][] = [
    [{ locality: 'TAPE' }, 'done'],
    [{ locality: 'DISK_AND_TAPE' }, 'done'],
    [{ locality: 'DISK' }, 'pending'],
    [{ locality: 'UNAVAILABLE' }, 'pending'],
    [{}, 'pending'],
    [{ locality: 'DISK', error: 'no tape pool' }, 'failed'],
    [{ error: 'no such file' }, 'failed'],
    [{ locality: 'LOST' }, 'failed'],
    [{ locality: 'NONE' }, 'failed'],
  ]
  for (const [info, result] of rows) {
    it(`${JSON.stringify(info)}: ${result}`, () => expect(located(1, info).result).to.equal(result))
  }
})

describe('a step of a recall', () => {
  const url = (file: number) => `https://a.example.org/d/f${file}`
  /** What the storage was asked, and how many results there are; `states` of its files, by number. `tries`: as often it is begun. */
  async function step(
    wants: StorageTask['files'][number]['want'][],
    states: readonly RecallState[],
    { last = true, tries = 1 } = {},
  ): Promise<{ calls: string[]; results: number }> {
    const calls: string[] = []
    const call = (name: string) => async () => {
      calls.push(name)
      return { known: true as const }
    }
    const tape = {
      release: call('release'),
      cancel: call('cancel'),
      forget: call('forget'),
      archiveInfo: async () => new Map<string, ArchiveInfo>(),
      poll: async () => ({
        known: true as const,
        files: new Map(states.map((state, file) => [new URL(url(file)).pathname, state])),
      }),
    } as Partial<TapeClient>
    const task = {
      ...{ task: 1, fence: 1, kind: 'recall', request: 'r', last, grant: 1, seconds: 1, storage: {} },
      files: wants.map((want, file) => ({ file, url: url(file), want })),
    } as unknown as StorageTask
    const workshop = {
      access: {
        async use(_place: unknown, run: (token: Secret) => Promise<unknown>) {
          let answer: unknown
          for (let i = 0; i < tries; i += 1) answer = await run(new Secret('t'))
          return answer
        },
      },
      storages: { client: () => ({ tape }) },
    } as unknown as TaskWorkshop
    const { error, results } = await recallFiles(task, workshop)
    expect(error).to.equal(undefined)
    return { calls, results: results.length }
  }
  const asked = async (...parameters: Parameters<typeof step>) => (await step(...parameters)).calls

  it('that was begun anew with another token tells each file once', async () => {
    expect((await step(['poll', 'release'], [{ kind: 'pending' }], { tries: 2 })).results).to.equal(2)
  })

  it('has the storage forget the request when its last file is released, cancelled or failed', async () => {
    expect(await asked(['release', 'cancel'], [])).to.deep.equal(['release', 'cancel', 'forget'])
    expect(await asked(['poll', 'poll'], Array(2).fill({ kind: 'failed', words: 'no' }))).to.deep.equal(['forget'])
  })

  it('does not while a file is on its way, or on disk to be copied', async () => {
    const failed = { kind: 'failed', words: 'no' } as const
    expect(await asked(['poll', 'poll'], [failed, { kind: 'pending' }])).to.deep.equal([])
    expect(await asked(['poll', 'poll'], [{ kind: 'staged' }, failed])).to.deep.equal([])
    expect(await asked(['poll'], [failed], { last: false })).to.deep.equal([])
  })
})
