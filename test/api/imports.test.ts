import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import { environment } from '../../shared/runtime/environment.ts'
import { runCommand } from '../house/command.ts'
import { AUDIENCE, type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'

const WAYBILL = fileURLToPath(new URL('../../bin/waybill.js', import.meta.url))
const SOON = { soonSeconds: 0.1, laterSeconds: 0.1, maxDelaySeconds: 0.2 }

describe('imports', () => {
  let house: House

  before(async () => {
    house = await startHouse({ server: { retry: SOON } })
    await house.addStorages()
    await house.startWorker()
  })
  after(() => house.stop())

  /** Below the prefix of SITE-A. */
  async function put(...names: string[]): Promise<void> {
    const { directory, basePath } = house.sandbox.storages[0] ?? { directory: '', basePath: '' }
    for (const name of names) {
      const path = join(directory, basePath, 'exp', name)
      await mkdir(dirname(path), { recursive: true })
      await writeFile(path, name)
    }
  }
  const waybill = (line: string, as: 'manager' | 'server' = 'manager') => runCommand(house, line, as)
  const show = (id: number) => house.client.getImport({ params: { id } })
  const add = async (path: string): Promise<number> => {
    const body = { rse: 'SITE-A', path: `/data/exp/${path}`, dataset: `exp:${path}` }
    return (await house.client.addImport({ body })).id
  }
  const ends = (id: number, state: string) =>
    until(
      () => show(id),
      job => job.state === state,
    )

  it('show their progress, and end with what was left out', async () => {
    await put('run1/a', 'run1/sub/b', 'run1/with space')
    const { status, out, err } = await waybill('import --rse SITE-A --path /data/exp/run1 --did exp:run1')
    expect(status).to.equal(1)
    expect(out)
      .to.match(/^state +DONE$/m)
      .and.to.match(/^files +2$/m)
      .and.to.match(/^leftOut +1$/m)
    expect(err).to.match(/^import \d+ DONE: 2 files, 16 B, [\d.]+ files\/s, 0 directories left, 1 left out$/m)
    const [, id] = /waybill import problems (\d+) tells which/.exec(err) ?? []
    const problems = await waybill(`import problems ${id}`)
    expect(problems.out).to.match(/^NAME_INVALID +"with space" +DID name has white space \(U\+0020\)/m)
    const { items } = await house.client.listContents({ params: { scope: 'exp', name: 'run1' } })
    expect(items.map(({ did }) => did)).to.deep.equal(['exp:run1/a', 'exp:run1/sub/b'])
  })

  it('are JSON lines for programs, the last of which is the end', async () => {
    await put('lines/a', 'lines/b/c')
    const { status, out } = await waybill('import --rse SITE-A --path /data/exp/lines --did exp:lines --json')
    const lines = out.trim().split('\n')
    expect(status).to.equal(0)
    expect(JSON.parse(lines.at(-1) ?? '')).to.include({ state: 'DONE', files: 2, leftOut: 0 })
    expect(new Set(lines).size).to.equal(lines.length)
  })

  it('are listed, by state and storage', async () => {
    await put('listed/a')
    const id = await add('listed')
    await ends(id, 'DONE')
    const { out } = await waybill('import list --state done --rse SITE-A --json')
    const items = out
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as { id: number; state: string })
    expect(items.map(item => item.id)).to.include(id)
    expect(new Set(items.map(item => item.state))).to.deep.equal(new Set(['DONE']))
    expect((await waybill('import list --rse SITE-B')).err).to.equal('there are none\n')
  })

  it('want to be told what, and as what', async () => {
    expect((await waybill('import --rse SITE-A')).status).to.equal(2)
    expect((await waybill('import list --state over')).status).to.equal(2)
  })

  it('that are refused say why, and go on when that is mended', async () => {
    const id = await add('late')
    expect(await ends(id, 'FAILED'))
      .to.have.property('error')
      .that.matches(/^SOURCE_MISSING: PROPFIND answered 404/)
    await put('late/a')
    const { status, out } = await waybill(`import resume ${id} --watch`)
    expect([status, /^state +DONE$/m.test(out)]).to.deep.equal([0, true])
    expect(await show(id))
      .to.include({ files: 1 })
      .and.not.to.have.property('error')
  })

  it('wait for a storage that is away, and say for what', async () => {
    await put('away/a', 'away/b')
    house.storages.get('SITE-A')?.refuse({ verb: 'PROPFIND', status: 503, times: 4 })
    const id = await add('away')
    const waiting = await until(
      () => show(id),
      job => job.error !== undefined || job.state === 'DONE',
    )
    expect(waiting.error).to.match(/^STORAGE_BUSY: /)
    expect(await ends(id, 'DONE'))
      .to.include({ files: 2 })
      .and.not.to.have.property('error')
  })

  it('are cancelled, and resumed, but not when they are done', async () => {
    await put('stopped/a')
    house.storages.get('SITE-A')?.refuse({ verb: 'PROPFIND', status: 503, times: 10_000 })
    const id = await add('stopped')
    expect((await waybill(`import cancel ${id}`)).out).to.equal(`import ${id} is cancelled; 0 files are registered\n`)
    expect(await show(id)).to.include({ state: 'CANCELLED' })
    expect((await waybill(`import show ${id} --watch`)).err).to.contain(`waybill import resume ${id} goes on`)
    await house.restartStorage('SITE-A', async () => undefined)
    expect((await waybill(`import resume ${id}`)).out).to.equal(`import ${id} goes on\n`)
    await ends(id, 'DONE')
    for (const verb of ['cancel', 'resume']) {
      const { status, err } = await waybill(`import ${verb} ${id}`)
      expect([status, err.includes('IMPORT_DONE')]).to.deep.equal([1, true])
    }
  })

  it('go on with another worker when theirs is drained', async function () {
    this.timeout(120_000)
    const names = Array.from({ length: 2_000 }, (_, i) => `many/f${i}`)
    await put(...names)
    const id = await add('many')
    await until(
      () => show(id),
      job => job.files >= 500,
    )
    expect((await waybill('worker drain worker-1 --wait --timeout 60s')).status).to.equal(0)
    const { state, files } = await show(id)
    expect(state).to.equal('QUEUED')
    expect(files).to.be.within(500, 1_999)
    await house.startWorker('worker-2')
    expect(await ends(id, 'DONE')).to.include({ files: 2_000, present: 0, leftOut: 0 })
    await waybill('worker resume worker-1')
  })

  it('go on when Ctrl-C ends the command, which says how to see them again', async () => {
    await put('left/a')
    house.storages.get('SITE-A')?.refuse({ verb: 'PROPFIND', status: 503, times: 10_000 })
    const token = await house.token('manager', AUDIENCE, ['wlcg'])
    const line = ['import', '--rse', 'SITE-A', '--path', '/data/exp/left', '--did', 'exp:left']
    const child = spawn(process.execPath, [WAYBILL, ...line], {
      env: {
        ...environment,
        WAYBILL_URL: house.baseUrl,
        WAYBILL_CA: house.sandbox.authority.caFile,
        BEARER_TOKEN: token.reveal(),
      },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString()
      if (/STORAGE_BUSY/.test(said) && !child.killed) child.kill('SIGINT')
    })
    const [status] = await once(child, 'close')
    const [, id = ''] = /import (\d+) goes on: waybill import show \1 --watch\n$/.exec(said) ?? []
    expect([status, id], said).not.to.include('')
    expect(status).to.equal(130)
    await house.restartStorage('SITE-A', async () => undefined)
    expect(await ends(Number(id), 'DONE')).to.include({ files: 1 })
  })

  it('are changed by their account alone', async () => {
    await put('own/a')
    const id = await add('own')
    await house.client.addAccount({ body: { name: 'bob', vo: 'exp' } })
    const { issuer, clients } = house.sandbox
    await house.client.addIdentity({ body: { issuer, subject: clients.server.id, account: 'bob', vo: 'exp' } })
    const bob = house.clientFor(() => house.token('server', AUDIENCE, ['wlcg']))
    expect((await bob.getImport({ params: { id } })).account).to.equal('alice')
    for (const change of [bob.cancelImport, bob.resumeImport]) {
      const error: unknown = await change({ params: { id } }).catch((reason: unknown) => reason)
      expect(error).to.be.instanceOf(ApiError).with.property('code', 'FORBIDDEN')
    }
  })
  it('are resumed by who may still write in the scope', async () => {
    await put('late/a')
    const { issuer, clients } = house.sandbox
    await house.client.addAccount({ body: { name: 'carl', vo: 'exp' } })
    await house.client.addIdentity({ body: { issuer, subject: clients.worker.id, account: 'carl', vo: 'exp' } })
    const carl = house.clientFor(() => house.token('worker', AUDIENCE, ['wlcg']))
    const { id } = await carl.addImport({ body: { rse: 'SITE-A', path: '/data/exp/gone', dataset: 'shut:late' } })
    await ends(id, 'FAILED')
    await house.client.setPermissions({ params: { scope: 'shut', account: 'alice' }, body: { permissions: ['write'] } })
    const error: unknown = await carl.resumeImport({ params: { id } }).catch((reason: unknown) => reason)
    expect(error).to.be.instanceOf(ApiError).with.property('code', 'SCOPE_FORBIDDEN')
    expect(await show(id)).to.include({ state: 'FAILED' })
    expect((await carl.cancelImport({ params: { id } })).state).to.equal('CANCELLED')
  })
})
