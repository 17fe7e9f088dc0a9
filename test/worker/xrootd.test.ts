import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import type { ClaimedTransfer } from '../../shared/contract/routes/worker.ts'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { requireComponents } from '../interop/components.ts'
import { startXrootd, type Xrootd } from '../interop/xrootd.ts'
import { lies, place } from '../interop/xrootd-files.ts'
import { Stage } from './stage.ts'
import { CLEAN_UP } from './stand-in-server.ts'

/** What XRootD 5.5.3 does differently from the embedded storages: facts/http-tpc.md sections 4 and 5. */
describe('an attempt between real XRootD servers', () => {
  let stage: Stage
  let directory: string
  let a: Xrootd
  let b: Xrootd
  let transfers = 0

  before(async function () {
    requireComponents(this, ['xrootd'])
    stage = await Stage.create()
    directory = await mkdtemp(join(tmpdir(), 'waybill-worker-xrootd-'))
    await chmod(directory, 0o755)
    const start = async (name: string) => {
      await mkdir(join(directory, name))
      const { authority, issuer } = stage.sandbox
      return startXrootd({ directory: join(directory, name), authority, issuer })
    }
    a = await start('a')
    b = await start('b')
    stage.start()
  })
  after(async () => {
    await stage?.end()
    await Promise.all([a?.stop(), b?.stop()])
    if (directory !== undefined) await rm(directory, { recursive: true })
  })

  const traits = {
    canPull: true,
    canPush: true,
    checksum: 'adler32',
    checksumPolicy: 'destination',
    watchdogs: {},
    freshConnections: false,
    macaroons: false,
    redirectHosts: [] as string[],
  } as const

  /** A file at the first server, and the transfer that brings it to the second by this mode. */
  async function transfer(mode: 'pull' | 'push' | 'stream', name: string, content: Buffer): Promise<ClaimedTransfer> {
    await place(a, name, content)
    transfers += 1
    const id = transfers
    const grants = { source: id * 10 + 1, destination: id * 10 + 2 }
    const top = name.split('/').slice(0, 2).join('/')
    const grant = (storage: Xrootd, ...verbs: string[]) => ({
      audience: storage.audience,
      scopes: verbs.map(verb => `storage.${verb}:/${top}`),
      generation: 0,
      exchange: true,
      exchanged: false,
    })
    stage.server.grants.set(grants.source, grant(a, 'read'))
    stage.server.grants.set(grants.destination, grant(b, 'create', 'read'))
    stage.server.grants.set(id + CLEAN_UP, grant(b, 'modify', 'read'))
    stage.server.storages.set(`A-${mode}`, { rse: `A-${mode}`, ...traits, canPush: mode !== 'stream' })
    stage.server.storages.set(`B-${mode}`, { rse: `B-${mode}`, ...traits, canPull: mode === 'pull' })
    return {
      transfer: id,
      fence: 1,
      kind: 'copy',
      did: `s:${name}`,
      bytes: content.length,
      adler32: adler32Hex(adler32(content)),
      source: { rse: `A-${mode}`, url: `${a.url}/${name}`, grant: grants.source },
      destination: { rse: `B-${mode}`, url: `${b.url}/${name}`, grant: grants.destination },
    }
  }

  const run = async (work: ClaimedTransfer) => {
    stage.server.enqueue(work)
    return stage.server.outcomeOf(work.transfer)
  }

  for (const mode of ['pull', 'push', 'stream'] as const) {
    it(`${mode === 'push' ? 'pushes' : `${mode}s`} a file into directories that are not there yet`, async () => {
      const content = Buffer.alloc(300_000, mode)
      const outcome = await run(await transfer(mode, `s/${mode}/deep/er/f`, content))
      expect(outcome.error).to.equal(undefined)
      expect(outcome).to.include({ result: 'done', mode })
      expect(await lies(b, `s/${mode}/deep/er/f`)).to.deep.equal(content)
    })

    it(`never overwrites what a ${mode} finds there`, async () => {
      await place(b, `s/there-${mode}/f`, 'another file')
      const outcome = await run(await transfer(mode, `s/there-${mode}/f`, Buffer.from('content')))
      expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS' })
      expect(outcome, 'removed under a permit, and not copied in this attempt').to.include({
        result: 'failed',
        cleaned: true,
      })
    })
  }

  it('removes the empty file that a pull of a missing source leaves', async () => {
    const work = await transfer('pull', 's/debris/f', Buffer.from('content'))
    const outcome = await run({ ...work, source: { ...work.source, url: `${work.source.url}.missing` } })
    expect(outcome.error).to.include({ code: 'SOURCE_MISSING', scope: 'SOURCE' })
    expect(outcome.result).to.equal('failed')
    expect(await lies(b, 's/debris/f')).to.equal(undefined)
  })

  it('takes a file that is there and right', async () => {
    await place(b, 's/same/f', 'content')
    expect(await run(await transfer('pull', 's/same/f', Buffer.from('content')))).to.include({
      result: 'done',
      bytes: 0,
    })
  })

  it('brings many small files over kept connections', async () => {
    const works = await Promise.all(
      Array.from({ length: 100 }, (_, i) => transfer('pull', `s/many/f${i}`, Buffer.from(`content of file ${i}`))),
    )
    const [first] = works
    if (first === undefined) throw new Error('nothing to do')
    const { source, destination } = first
    const together = works.map(work => ({
      ...work,
      source: { ...work.source, grant: source.grant },
      destination: { ...work.destination, grant: destination.grant },
    }))
    stage.server.enqueue(...together)
    const ends = await Promise.all(together.map(work => stage.server.outcomeOf(work.transfer)))
    expect(ends.filter(end => end.result !== 'done').map(end => end.error ?? end)).to.deep.equal([])
  })
})
