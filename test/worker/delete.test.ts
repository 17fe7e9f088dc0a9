import { expect } from 'chai'
import type { StorageTask } from '../../shared/contract/routes/worker.ts'
import type { TransferCode } from '../../shared/domain/error-catalogue.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { systemClock as clock } from '../../shared/runtime/clock.ts'
import { transferFailure } from '../../shared/storage/classify.ts'
import { StorageError } from '../../shared/storage/types.ts'
import { deleteFiles } from '../../worker/delete.ts'
import { momentOf } from '../../worker/remove.ts'
import type { TaskWorkshop } from '../../worker/task.ts'

const FILES = 100

/** What a storage that answers so to the n-th DELETE was asked, and what was told of it. */
async function deleted(answer: (nth: number) => TransferCode | 'gone', seconds = 60) {
  let sent = 0
  const remove = async () => {
    const code = answer(sent++)
    if (code === 'gone') return
    const scope = code === 'TOKEN_REFUSED' ? 'TOKEN' : 'DESTINATION'
    throw new StorageError(transferFailure(code, scope, 'PREPARATION', 'no'))
  }
  const task = {
    ...{ task: 1, fence: 1, kind: 'delete', last: false, grant: 1, seconds, storage: {} },
    files: Array.from({ length: FILES }, (_, file) => ({
      file,
      url: `https://a.example.org/d/f${file}`,
      want: 'delete',
    })),
  } as unknown as StorageTask
  const workshop = {
    access: { use: (_place: unknown, run: (token: Secret) => unknown) => run(new Secret('t')) },
    storages: { client: () => ({ remove }) },
    ...{ clock, askedAt: momentOf(clock), signal: new AbortController().signal },
  } as unknown as TaskWorkshop
  const { results, error } = await deleteFiles(task, workshop)
  const of = (result: string) => results.filter(one => one.result === result).length
  return { sent, done: of('done'), failed: of('failed'), error: error?.code }
}

describe('the worker deletes the files of a task', () => {
  it('all of them', async () => {
    expect(await deleted(() => 'gone')).to.deep.equal({ sent: FILES, done: FILES, failed: 0, error: undefined })
  })

  it('those that can be, where others cannot', async () => {
    const told = await deleted(nth => (nth % 3 === 0 ? 'PERMISSION_DENIED' : 'gone'))
    expect(told).to.deep.equal({ sent: FILES, done: 66, failed: 34, error: undefined })
  })

  it('until five in a row fail alike: the storage is away', async () => {
    const { sent, done, failed, error } = await deleted(nth => (nth < 10 ? 'gone' : 'CONNECT_FAILED'))
    expect([done, error]).to.deep.equal([10, 'CONNECT_FAILED'])
    expect(failed, 'those under way at that moment are told too').to.be.within(5, 12)
    expect(sent).to.equal(done + failed)
  })

  it('until a token is refused', async () => {
    const { failed, error } = await deleted(() => 'TOKEN_REFUSED')
    expect(error).to.equal('TOKEN_REFUSED')
    expect(failed).to.be.within(1, 8)
  })

  it('until the time is over: what was not sent is not told', async () => {
    expect(await deleted(() => 'gone', 0)).to.deep.equal({ sent: 0, done: 0, failed: 0, error: undefined })
  })
})
