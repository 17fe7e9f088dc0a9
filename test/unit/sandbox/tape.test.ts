import { expect } from 'chai'
import type { Secret } from '../../../shared/domain/secret.ts'
import type { ArchiveInfo, StageProgress } from '../../../shared/storage/types.ts'
import { CONTENT, refusal, TapeSite } from './tape-site.ts'

const FILES = Array.from({ length: 20 }, (_, i) => `/data/run/${String(i).padStart(2, '0')}`)
const [FIRST = '', SECOND = ''] = FILES
const wanted = (paths: readonly string[], diskLifetime?: string) =>
  paths.map(path => ({ path, ...(diskLifetime !== undefined && { diskLifetime }) }))
const stateOf = (progress: StageProgress, path: string) => (progress.known ? progress.files.get(path) : undefined)

for (const dialect of ['dcache', 'eos'] as const) {
  describe(`the tape front of an embedded storage, as ${dialect}`, () => {
    let site: TapeSite
    let token: Secret
    beforeEach(async () => {
      site = await TapeSite.create({ dialect, drives: 2, secondsPerFile: 60, archiveSeconds: 30 })
      token = await site.token('storage.stage:/ storage.read:/')
    })
    afterEach(() => site.remove())

    const localities = async (...paths: string[]) =>
      [...(await site.tape.archiveInfo(site.url, token, paths)).values()].map(
        ({ locality, error }: ArchiveInfo) => locality ?? error,
      )

    it('tells where its API is', async () => {
      expect(await site.tape.discover(`${site.url}/data/x`, undefined)).to.deep.equal({
        uri: `${site.url}/api/v1`,
        version: 'v1',
        sitename: 'SITE-A',
      })
    })

    it('recalls 20 files on 2 slow drives, two at a time', async () => {
      await site.onTape(...FILES)
      const { requestId, location } = await site.tape.stage(site.url, token, wanted(FILES))
      expect(location).to.equal(`${site.url}/api/v1/stage/${requestId}`)
      expect(await site.count(token, requestId, FILES)).to.deep.equal({ pending: 20 })
      for (let staged = 2; staged < 20; staged += 2) {
        await site.turn(token, requestId, FILES, staged, 2)
        await site.clock.untilSleeping(2)
        expect(site.clock.sleepers).to.equal(2)
        expect(await site.count(token, requestId, FILES)).to.deep.equal({ staged, pending: 20 - staged })
      }
      await site.turn(token, requestId, FILES, 20, 2)
      expect(await localities(...FILES)).to.deep.equal(FILES.map(() => 'DISK_AND_TAPE'))
    })

    it('lets go of what lies on disk too long, but not before it is on tape, nor of what is held', async () => {
      site.front.settings.diskSeconds = 45
      await site.onDisk(FIRST, SECOND)
      await site.clock.advance(29_000)
      expect(await localities(FIRST)).to.deep.equal(['DISK'])
      await site.clock.advance(15_000)
      expect(await localities(FIRST)).to.deep.equal(['DISK_AND_TAPE'])
      const { requestId } = await site.tape.stage(site.url, token, wanted([FIRST]))
      while ((await site.count(token, requestId, [FIRST])).staged !== 1);
      await site.clock.advance(1_000)
      expect(await localities(FIRST, SECOND)).to.deep.equal(['DISK_AND_TAPE', 'TAPE'])
      await site.tape.release(site.url, token, requestId, [FIRST])
      expect(await localities(FIRST)).to.deep.equal(['TAPE'])
    })

    it('gives the drives to others when a recall is cancelled in the middle', async () => {
      await site.onTape(...FILES)
      const { requestId } = await site.tape.stage(site.url, token, wanted(FILES))
      await site.turn(token, requestId, FILES, 2, 2)
      await site.clock.untilSleeping(2)
      // Two have come, two are being read, sixteen wait.
      const cancelled = FILES.slice(1, 18)
      expect(await site.tape.cancel(site.url, token, requestId, cancelled)).to.deep.equal({ known: true })
      await site.turn(token, requestId, FILES, 4, 2)
      const kind = dialect === 'dcache' ? 'cancelled' : 'pending'
      expect(await site.count(token, requestId, FILES)).to.deep.equal({ staged: 4, [kind]: 16 })
      expect(await localities(...FILES)).to.deep.equal(
        FILES.map((_, i) => (i < 2 || i > 17 ? 'DISK_AND_TAPE' : 'TAPE')),
      )
    })

    it('tells that a tape cannot be read, and that a file is not there', async () => {
      await site.onTape(FIRST, SECOND)
      site.front.settings.lost = [SECOND]
      expect(await localities(FIRST, SECOND)).to.deep.equal(['TAPE', 'LOST'])
      const paths = [FIRST, SECOND, '/data/run/none']
      const { requestId } = await site.tape.stage(site.url, token, wanted(paths))
      await site.turn(token, requestId, paths, 1, 2)
      while ((await site.count(token, requestId, paths)).pending !== undefined);
      const progress = await site.tape.poll(site.url, token, requestId, paths)
      const words = `the tape that holds ${SECOND} cannot be read`
      expect(stateOf(progress, SECOND)).to.deep.equal({ kind: 'failed', words })
      // EOS says that what isn't there is not on disk; what it says of why is an error like any other.
      expect(stateOf(progress, '/data/run/none')).to.deep.equal({
        kind: 'failed',
        words: 'No such file or directory /data/run/none',
      })
    })

    it('keeps a recalled file on disk until it is released', async () => {
      await site.onTape(FIRST, SECOND)
      const { requestId } = await site.tape.stage(site.url, token, wanted([FIRST, SECOND]))
      await site.turn(token, requestId, [FIRST, SECOND], 2, 2)
      expect(await site.front.evict(FIRST)).to.equal(false)
      const read = await site.client.get(`${site.url}${FIRST}`, token)
      expect(Buffer.concat(await read.body.toArray()).toString()).to.equal(CONTENT)
      await site.tape.release(site.url, token, requestId, [FIRST])
      // EOS takes it from disk at once; dCache, when it needs the room.
      expect(await localities(FIRST)).to.deep.equal([dialect === 'eos' ? 'TAPE' : 'DISK_AND_TAPE'])
      expect(await site.front.evict(FIRST)).to.equal(true)
      expect(await localities(FIRST, SECOND)).to.deep.equal(['TAPE', 'DISK_AND_TAPE'])
    })

    it('keeps a file that somebody else has staged too', async () => {
      await site.onTape(FIRST)
      const mine = await site.tape.stage(site.url, token, wanted([FIRST]))
      const theirs = await site.tape.stage(site.url, token, wanted([FIRST]))
      await site.turn(token, mine.requestId, [FIRST], 1, 2)
      while ((await site.count(token, theirs.requestId, [FIRST])).staged !== 1);
      await site.tape.release(site.url, token, mine.requestId, [FIRST])
      expect(await site.front.evict(FIRST)).to.equal(false)
      await site.tape.release(site.url, token, theirs.requestId, [FIRST])
      expect(await site.front.evict(FIRST)).to.equal(true)
    })

    it('has a new file on disk first, then on tape too', async () => {
      await site.onDisk(FIRST)
      await site.fixture.call('PUT', `${site.url}/data/empty`, {
        token: (await site.token('storage.create:/')).reveal(),
        body: '',
      })
      const none = dialect === 'dcache' ? 'No such file or directory /data/none' : /^USER ERROR: file does not exist/
      const [there, empty, missing] = await localities(FIRST, '/data/empty', '/data/none')
      expect([there, empty]).to.deep.equal(['DISK', dialect === 'dcache' ? 'DISK' : 'NONE'])
      expect(missing).to.match(none instanceof RegExp ? none : new RegExp(`^${none}$`))
      expect(await site.front.evict(FIRST)).to.equal(false)
      await site.clock.advance(29_999)
      expect(await localities(FIRST)).to.deep.equal(['DISK'])
      await site.clock.advance(1)
      expect(await localities(FIRST)).to.deep.equal(['DISK_AND_TAPE'])
      await site.onDisk(FIRST)
      expect(await localities(FIRST)).to.deep.equal(['DISK'])
    })

    it('stages what is on disk at once, and keeps it', async () => {
      await site.onDisk(FIRST)
      const { requestId } = await site.tape.stage(site.url, token, wanted([FIRST]))
      while ((await site.count(token, requestId, [FIRST])).staged !== 1);
      await site.clock.advance(30_000)
      expect(await site.front.evict(FIRST)).to.equal(false)
    })

    it('forgets a request, and ends what still waits', async () => {
      await site.onTape(FIRST, SECOND)
      const { requestId } = await site.tape.stage(site.url, token, wanted([FIRST, SECOND]))
      expect(await site.tape.forget(site.url, token, requestId)).to.deep.equal({ known: true })
      expect(await site.tape.poll(site.url, token, requestId, [FIRST])).to.deep.equal({ known: false })
      expect(await site.tape.cancel(site.url, token, requestId, [FIRST])).to.deep.equal({ known: false })
      expect(await site.tape.forget(site.url, token, requestId)).to.deep.equal({ known: false })
      const next = await site.tape.stage(site.url, token, wanted([SECOND]))
      await site.turn(token, next.requestId, [SECOND], 1)
      expect(await localities(FIRST, SECOND)).to.deep.equal(['TAPE', 'DISK_AND_TAPE'])
    })

    it('ends nothing when a file to cancel is not of the request', async () => {
      await site.onTape(FIRST, SECOND)
      const { requestId } = await site.tape.stage(site.url, token, wanted([FIRST]))
      expect(await refusal(site.tape.cancel(site.url, token, requestId, [FIRST, SECOND]))).to.equal(400)
      await site.turn(token, requestId, [FIRST], 1)
    })

    it('moves a file with its copies', async () => {
      await site.onTape(FIRST)
      const moving = (await site.token('storage.modify:/')).reveal()
      const headers = { Destination: `${site.url}${SECOND}` }
      await site.fixture.call('MOVE', `${site.url}${FIRST}`, { token: moving, headers })
      expect((await localities(SECOND)).at(0)).to.equal('TAPE')
    })
  })
}
