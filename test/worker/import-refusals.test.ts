import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import type { ImportJob } from '../../shared/contract/routes/worker.ts'
import type { TransferCode } from '../../shared/domain/error-catalogue.ts'
import { classifyAnswer, transferFailure } from '../../shared/storage/classify.ts'
import { StorageError } from '../../shared/storage/types.ts'
import type { WorkOptions } from '../../worker/loop.ts'
import { ImportStage } from './import-stage.ts'
import { Stage } from './stage.ts'
import type { ReportedFiles } from './stand-in-server.ts'

/** What a storage answers. */
const answer = (verb: 'HEAD' | 'PROPFIND', status: number) =>
  new StorageError(classifyAnswer({ verb, scope: 'SOURCE' }, status, ''))

describe('an import of what a storage refuses in part', function () {
  this.timeout(20_000)
  let stage: Stage
  let imports: ImportStage
  beforeEach(async () => {
    stage = await Stage.create()
    imports = new ImportStage(stage)
  })
  afterEach(() => stage.end())

  async function run(
    refuse: (verb: 'HEAD' | 'PROPFIND', name: string) => unknown,
    more: Partial<ImportJob> = {},
    options: Partial<WorkOptions> = {},
  ): Promise<{ files: string[]; leftOut: string[][]; reports: ReportedFiles[]; error: ReportedFiles['error'] }> {
    stage.start({ ...imports.watched(refuse), ...options })
    const reports = await imports.reportsOf(await imports.job('tree', more))
    return {
      files: reports.flatMap(({ files }) => files.map(({ path }) => path)).sort(),
      leftOut: reports.flatMap(({ leftOut }) => leftOut.map(({ path, code }) => [path, code])),
      reports,
      error: reports.at(-1)?.error,
    }
  }
  const write = async (...names: string[]): Promise<void> => {
    for (const name of names) await stage.write('SITE-A', `tree/${name}`, name)
  }

  const cases: [status: number, code: TransferCode][] = [
    [403, 'PERMISSION_DENIED'],
    [401, 'TOKEN_REFUSED'],
    [405, 'NOT_SUPPORTED'],
    [500, 'STORAGE_ERROR'],
  ]
  for (const [status, code] of cases) {
    it(`leaves out one directory that is answered ${status}, and takes the others`, async () => {
      await write('a/f', 'lost+found/x', 'z/f')
      const tried: string[] = []
      const { files, leftOut, error } = await run((verb, name) => {
        if (verb === 'PROPFIND') tried.push(name)
        if (name.startsWith('tree/lost')) throw answer(verb, status)
      })
      expect({ files, leftOut, error }).to.deep.equal({
        files: ['a/f', 'z/f'],
        leftOut: [['lost+found', code]],
        error: undefined,
      })
      // A 401 is asked again with a renewed token; a 500 after the others.
      expect(tried.filter(name => name.startsWith('tree/lost'))).to.have.length(
        status > 404 || status === 403 ? (status === 500 ? 2 : 1) : 2,
      )
      if (status === 500) expect(tried.at(-1)).to.match(/lost/)
    })
  }

  it('waits when the storage refuses all: it is not the directory', async () => {
    await write('a/f', 'b/f')
    let lists = 0
    const { leftOut, error } = await run(verb => {
      if (verb === 'PROPFIND') lists += 1
      if (lists > 1) throw answer(verb, 500)
    })
    expect(leftOut).to.deep.equal([])
    expect(error).to.include({ code: 'STORAGE_ERROR', retryable: true })
  })

  it('waits when the storage is in trouble as a whole, whatever it says of one directory', async () => {
    await write('a/f')
    let forbidden = false
    const { leftOut, error } = await run((verb, name) => {
      if (name === 'tree/a') forbidden = true
      if (forbidden) throw answer(verb, verb === 'HEAD' ? 500 : 403)
    })
    expect(leftOut).to.deep.equal([])
    expect(error).to.include({ code: 'STORAGE_ERROR', retryable: true })
  })

  it('takes the others before it waits for a directory that nobody answers for', async () => {
    await write('a/f', 'b/f', 'c/f')
    const away = new StorageError(transferFailure('TIMEOUT_HEADERS', 'SOURCE', 'PREPARATION', 'no answer in time'))
    const { files, leftOut, error } = await run((verb, name) => {
      if (verb === 'PROPFIND' && name === 'tree/c') throw away
    })
    expect(files).to.deep.equal(['a/f', 'b/f'])
    expect(leftOut).to.deep.equal([])
    expect(error).to.include({ code: 'TIMEOUT_HEADERS', retryable: true, message: 'c: no answer in time' })
  })

  it('leaves out one file that is answered 401 while the token is believed, as dCache does', async () => {
    await write('a', 'b', 'c')
    const { files, leftOut, error } = await run((verb, name) => {
      if (name === 'tree/b') throw answer(verb, 401)
    })
    expect({ files, leftOut, error }).to.deep.equal({
      files: ['a', 'c'],
      leftOut: [['b', 'TOKEN_REFUSED']],
      error: undefined,
    })
  })

  it('comes back to a directory whose files and itself are broken, and leaves those files out then', async () => {
    await write('a/f', 'b/f', 'b/g', 'c/f')
    const { files, leftOut, error } = await run((verb, name) => {
      if (verb === 'HEAD' && name.startsWith('tree/b')) throw answer(verb, 500)
    })
    expect({ files, leftOut, error }).to.deep.equal({
      files: ['a/f', 'c/f'],
      leftOut: [
        ['b/f', 'STORAGE_ERROR'],
        ['b/g', 'STORAGE_ERROR'],
      ],
      error: undefined,
    })
  })

  it('leaves out what is too deep', async () => {
    const deep = Array.from({ length: 65 }, () => 'd').join('/')
    await write(`${deep}/f`, 'a')
    const { files, leftOut, error } = await run(() => undefined)
    expect({ files, leftOut, error }).to.deep.equal({ files: ['a'], leftOut: [[deep, 'TOO_DEEP']], error: undefined })
  })

  describe('where some files have no checksum', () => {
    const unsummed = (isUnsummed: (name: string) => boolean): Partial<WorkOptions> => {
      const { storages } = stage.options
      const client: typeof storages.client = (...given) => {
        const real = storages.client(...given)
        const head: typeof real.head = async (url, ...rest) => {
          const found = await real.head(url, ...rest)
          return isUnsummed(url.split('/tree/')[1] ?? '') ? { ...found, checksums: {} } : found
        }
        return { ...real, head }
      }
      return { storages: Object.create(storages, { client: { value: client } }) }
    }

    it('leaves them out, though they come first', async () => {
      await write('a/f', 'b/f')
      const options = unsummed(name => name === 'b/f')
      const { files, leftOut, error } = await run(() => undefined, {}, options)
      expect({ files, leftOut, error }).to.deep.equal({
        files: ['a/f'],
        leftOut: [['b/f', 'CHECKSUM_UNAVAILABLE']],
        error: undefined,
      })
    })

    it('leaves them out when others had one before an interruption', async () => {
      await write('a')
      const { leftOut, error } = await run(
        () => undefined,
        { summed: true },
        unsummed(() => true),
      )
      expect({ leftOut, error }).to.deep.equal({ leftOut: [['a', 'CHECKSUM_UNAVAILABLE']], error: undefined })
    })

    it('is refused after twenty of them and none with one', async () => {
      await write(...Array.from({ length: 30 }, (_, i) => `d${10 + i}/f`))
      const { files, leftOut, error } = await run(
        () => undefined,
        {},
        unsummed(() => true),
      )
      expect(files).to.deep.equal([])
      expect(leftOut).to.have.length(20)
      expect(error).to.include({ code: 'REQUEST_REFUSED', retryable: false })
    })

    it('is refused at the end when none of a few has one', async () => {
      await write('a/f', 'b/f')
      const { files, error } = await run(
        () => undefined,
        {},
        unsummed(() => true),
      )
      expect(files).to.deep.equal([])
      expect(error?.message).to.match(/^a\/f: SITE-A tells no checksum/)
    })
  })

  for (const [name, fails] of [
    ['grant', () => new ApiError('GRANT_UNKNOWN', 'no grant', { status: 404 })],
    ['issuer', () => 'ISSUER_UNKNOWN'],
  ] as const) {
    it(`is tried again when its ${name} is gone: another comes with the next turn`, async () => {
      await write('a')
      const wanted = await imports.job('tree')
      const fault = fails()
      const grant = stage.server.grants.get(wanted.grant)
      if (grant === undefined) throw new Error('no grant')
      if (typeof fault === 'string') grant.refused = { code: fault, message: 'no such issuer' }
      stage.server.before = call => {
        if (call === 'acquireToken' && typeof fault !== 'string') throw fault
      }
      stage.start()
      const [report] = await imports.reportsOf(wanted)
      expect(report?.error).to.include({ retryable: true })
    })
  }
})
