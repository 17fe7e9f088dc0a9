import { expect } from 'chai'
import type { StorageTask } from '../../shared/contract/routes/worker.ts'
import type { TransferCode } from '../../shared/domain/error-catalogue.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { systemClock as clock } from '../../shared/runtime/clock.ts'
import { transferFailure } from '../../shared/storage/classify.ts'
import { type FileStatus, StorageError } from '../../shared/storage/types.ts'
import { lookAtFiles } from '../../worker/look.ts'
import { momentOf } from '../../worker/remove.ts'
import type { TaskWorkshop } from '../../worker/task.ts'

const RIGHT: FileStatus = { exists: true, size: 3, checksums: { adler32: '00000001' } }
const OTHER: FileStatus = { exists: true, size: 3, checksums: { adler32: '00000002' } }
const GONE: FileStatus = { exists: false }

interface Answers {
  /** To the n-th HEAD. */
  readonly head: (nth: number) => FileStatus | TransferCode
  /** Names in the directory, or its failure. */
  readonly list?: readonly string[] | TransferCode
  readonly files?: number
  readonly adler32?: string | undefined
  readonly seconds?: number
}

/** What a storage that answers so was asked, and what was told of it. */
async function looked({ head, list = [], files = 1, adler32 = '00000001', seconds = 60 }: Answers) {
  const sent = { head: 0, list: 0 }
  const failing = (code: TransferCode) => new StorageError(transferFailure(code, 'SOURCE', 'PREPARATION', 'no'))
  const client = {
    async head() {
      const answer = head(sent.head++)
      if (typeof answer === 'string') throw failing(answer)
      return answer
    },
    async list() {
      sent.list += 1
      if (typeof list === 'string') throw failing(list)
      return list.map(name => ({ path: `/d/${name}`, directory: false, size: 3 }))
    },
  }
  const task = {
    ...{ task: 1, fence: 1, kind: 'look', last: false, grant: 1, seconds, storage: { checksum: 'adler32' } },
    files: Array.from({ length: files }, (_, file) => ({
      ...{ file, url: `https://a.example.org/d/f%20${file}`, want: 'look', bytes: 3, adler32 },
    })),
  } as unknown as StorageTask
  const workshop = {
    access: { use: (_place: unknown, run: (token: Secret) => unknown) => run(new Secret('t')) },
    storages: { client: () => client },
    ...{ clock, askedAt: momentOf(clock), signal: new AbortController().signal },
  } as unknown as TaskWorkshop
  const { results, error } = await lookAtFiles(task, workshop)
  return { sent, told: results.map(({ result, error: why }) => why?.code ?? result), error: error?.code }
}

describe('the worker looks at files', () => {
  const cases: [string, Answers, string][] = [
    ['that are right', { head: () => RIGHT }, 'done'],
    ['that are another, said twice', { head: () => OTHER }, 'SOURCE_CORRUPT'],
    [
      'of which two looks do not say the same (XRootD before 6.0.0)',
      { head: n => (n === 0 ? OTHER : RIGHT) },
      'CHECKSUM_UNAVAILABLE',
    ],
    ['of another size', { head: () => ({ ...RIGHT, size: 4 }) }, 'SOURCE_CORRUPT'],
    ['without any checksum, of the right size', { head: () => ({ ...RIGHT, checksums: {} }) }, 'done'],
    [
      'of which the storage tells nothing',
      { head: () => ({ exists: true, size: undefined, checksums: {} }) },
      'CHECKSUM_UNAVAILABLE',
    ],
    ['that are missing beside others', { head: () => GONE, list: ['f 7'] }, 'SOURCE_MISSING'],
    ['that are missing, but listed', { head: () => GONE, list: ['f 0'] }, 'NOT_FOUND'],
    ['that are missing with their directory: a disk may be', { head: () => GONE, list: 'NOT_FOUND' }, 'NOT_FOUND'],
    ['of a storage that fails', { head: () => 'STORAGE_ERROR' }, 'STORAGE_ERROR'],
  ]
  for (const [what, answers, expected] of cases) {
    it(what, async () => expect((await looked(answers)).told).to.deep.equal([expected]))
  }

  it('and lists a directory once for all that are missing there', async () => {
    const { sent, told } = await looked({ head: () => GONE, files: 50 })
    expect([sent.list, told.length, new Set(told).size]).to.deep.equal([1, 50, 1])
  })

  it('until five in a row fail: the storage is away', async () => {
    const { told, error } = await looked({ head: () => 'CONNECT_FAILED', files: 100 })
    expect(error).to.equal('CONNECT_FAILED')
    expect(told.length).to.be.within(5, 12)
  })

  it('until the storage asks for rest', async () => {
    const { told, error } = await looked({ head: () => 'TOO_MANY_REQUESTS', files: 100 })
    expect(error).to.equal('TOO_MANY_REQUESTS')
    expect(told.length).to.be.within(1, 8)
  })

  it('until the time is over: what was not looked at is not told', async () => {
    expect(await looked({ head: () => RIGHT, seconds: 0 })).to.deep.include({ told: [], error: undefined })
  })
})
