import { execFile, execFileSync } from 'node:child_process'
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { query } from '../../server/database/sql.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { environment } from '../../shared/runtime/environment.ts'
import { systemTerminal } from '../../shared/runtime/terminal.ts'
import { Apart } from '../faults/apart.ts'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'
import { brokenInvariants } from '../store/invariants.ts'
import { World } from '../store/world.ts'
import { requireComponents } from './components.ts'
import { readTree, type StoredFile } from './file-set.ts'
import { startXrootd, type Xrootd } from './xrootd.ts'

const run = promisify(execFile)
/** `IMPORT_FILES=100000` is the full length, some minutes of it. */
const FILES = Number(environment.IMPORT_FILES ?? 5_000)
/** Of one look at a slow machine that does other things too; making and comparing the files take their time as well. */
const PATIENCE_MS = 120_000 + FILES * 20
/** In a directory, but for one that has half of all. */
const PER_DIRECTORY = 50
const PREFIX = '/exp/site'

describe(`an import of what lies at a real XRootD, ${FILES} files`, function () {
  this.timeout(2 * PATIENCE_MS)
  const apart = new Apart()
  let house: House
  let xrootd: Xrootd
  /** What the storage's prefix is on its disk. */
  let site: string

  before(async function () {
    requireComponents(this, ['xrootd', 'rclone', 'gfal2', 'openssl'])
    house = await startHouse({
      launch: apart,
      server: { sessionLeaseSeconds: 3, retry: { soonSeconds: 0.5, laterSeconds: 0.5, maxDelaySeconds: 2 } },
    })
    const { authority, issuer } = house.sandbox
    xrootd = await startXrootd({ directory: join(house.directory, 'xrootd'), authority, issuer })
    site = join(xrootd.dataDirectory, 'site')
    const protocols = [{ url: xrootd.audience }]
    const place = { prefix: PREFIX, basePath: '/exp', audience: xrootd.audience, protocols }
    await house.client.addRse({ body: { name: 'XRD', ...place } })
    await house.startWorker()
  })
  after(async () => {
    await xrootd?.stop()
    await house?.stop()
  })

  const show = (id: number) => house.client.getImport({ params: { id } })
  /** Whatever is killed meanwhile. */
  const reaches = (id: number, files: number) =>
    until(
      () => show(id).catch(() => undefined),
      job => job !== undefined && (job.files >= files || job.state === 'DONE' || job.state === 'FAILED'),
      PATIENCE_MS,
    )
  const importOf = async (path: string, dataset: string): Promise<number> =>
    (await house.client.addImport({ body: { rse: 'XRD', path: `${PREFIX}/${path}`, dataset } })).id

  /** What the catalogue has of a dataset, by the path below the imported directory. */
  async function catalogued(path: string, dataset: string): Promise<Map<string, StoredFile>> {
    const db = house.database.open()
    try {
      const rows = await query<{ path: string; name: string; bytes: number; adler32: string }>(
        db.read,
        `SELECT directories.path || '/' || replicas.name AS path, files.name, files.bytes, files.adler32 FROM contents
           JOIN dids ON dids.id = contents.parent_id JOIN dids AS files ON files.id = contents.child_id
           JOIN replicas ON replicas.file_id = files.id JOIN directories ON directories.id = replicas.directory_id
          WHERE dids.name = :dataset AND replicas.state = 'AVAILABLE'`,
        { dataset },
      )
      const below = (row: { path: string }) => row.path.slice(`${PREFIX}/${path}/`.length)
      for (const row of rows) expect(row.name).to.equal(`${dataset}/${below(row)}`)
      return new Map(rows.map(row => [below(row), { bytes: row.bytes, adler32: row.adler32 }]))
    } finally {
      await db.close()
    }
  }

  const missingOrWrong = (there: Map<string, StoredFile>, known: Map<string, StoredFile>): string[] =>
    [...there].flatMap(([path, { bytes, adler32 }]) => {
      const found = known.get(path)
      return found?.bytes === bytes && found.adler32 === adler32 ? [] : [path]
    })

  it('takes over a tree that rclone and gfal-copy made, and again what is new, and tells what it cannot', async () => {
    const local = join(house.directory, 'local')
    const names = ['a.root', 'sub/b.root', 'sub/deep/er/c.root', 'empty']
    for (const name of [...names, 'with space', 'sub/ü']) {
      await mkdir(join(local, name, '..'), { recursive: true })
      await writeFile(join(local, name), name === 'empty' ? '' : `content of ${name}`)
    }
    const bearer = await house.token('server', xrootd.audience, ['storage.modify:/site', 'storage.read:/site'])
    const settings = ['[se]', 'type = webdav', `url = ${xrootd.url}/site/made`, 'vendor = other']
    const file = join(house.directory, 'rclone.conf')
    await writeFile(file, [...settings, `bearer_token = ${bearer.reveal()}`, ''].join('\n'), { mode: 0o600 })
    await run('rclone', ['--config', file, '--ca-cert', house.sandbox.authority.caFile, 'copy', local, 'se:'])
    const certificates = join(house.directory, 'certificates')
    await mkdir(certificates)
    await writeFile(join(certificates, 'ca.pem'), await readFile(house.sandbox.authority.caFile))
    await run('openssl', ['rehash', certificates])
    const gfal = (name: string) => {
      const destination = `${xrootd.url.replace(/^https/, 'davs')}/site/made/${name}`
      const env = { ...environment, BEARER_TOKEN: bearer.reveal(), X509_CERT_DIR: certificates }
      return run('gfal-copy', ['--parent', `file://${join(local, 'a.root')}`, destination], {
        env: { ...env, GFAL_PYTHONBIN: '/usr/bin/python3' },
      })
    }
    await gfal('gfal/d.root')
    names.push('gfal/d.root')

    const first = await importOf('made', 'exp:made')
    const done = { state: 'DONE', files: names.length, present: 0, leftOut: 2 }
    expect(await reaches(first, Number.POSITIVE_INFINITY)).to.include(done)
    const { items } = await house.client.listImportProblems({ params: { id: first } })
    expect(items.map(({ path, code }) => [path, code]).sort()).to.deep.equal([
      ['sub/ü', 'NAME_INVALID'],
      ['with space', 'NAME_INVALID'],
    ])
    const tree = await readTree(join(site, 'made'))
    for (const path of ['with space', 'sub/ü']) tree.delete(path)
    expect(await catalogued('made', 'made')).to.deep.equal(tree)

    await gfal('gfal/e.root')
    // Somebody has written to one that was there.
    await writeFile(join(site, 'made/a.root'), 'another content')
    const second = await importOf('made', 'exp:made')
    const again = { state: 'DONE', files: names.length, present: names.length - 1, leftOut: 3 }
    expect(await reaches(second, Number.POSITIVE_INFINITY)).to.include(again)
    const told = await house.client.listImportProblems({ params: { id: second } })
    expect(told.items.map(({ path, code }) => [path, code])).to.deep.include(['a.root', 'FILE_MISMATCH'])
    tree.set('gfal/e.root', tree.get('a.root') as StoredFile)
    expect(await catalogued('made', 'made')).to.deep.equal(tree)
  })

  it('leaves out a directory that is forbidden, and a loop of links where XRootD ends it', async () => {
    const odd = join(site, 'odd')
    for (const name of ['a/f', 'lost+found/f', 'loop/f', 'z/f']) {
      await mkdir(join(odd, name, '..'), { recursive: true })
      await writeFile(join(odd, name), name)
    }
    await symlink('.', join(odd, 'loop/s'))
    execFileSync('chown', ['-hR', 'xrootd:', odd])
    execFileSync('chown', ['root:', join(odd, 'lost+found')])
    await chmod(join(odd, 'lost+found'), 0o700)
    const id = await importOf('odd', 'exp:odd')
    // The kernel follows forty links.
    expect(await reaches(id, Number.POSITIVE_INFINITY)).to.include({ state: 'DONE', files: 2 + 41, leftOut: 2 })
    const { items } = await house.client.listImportProblems({ params: { id } })
    expect(items.map(({ path, code }) => [path, code]).sort()).to.deep.equal([
      [`loop${'/s'.repeat(41)}`, 'STORAGE_ERROR'],
      ['lost+found', 'PERMISSION_DENIED'],
    ])
  })

  it('ends complete and exact though the worker and the server are killed', async () => {
    await makeTree(join(site, 'big'), FILES)
    execFileSync('chown', ['-R', 'xrootd:', site])
    const there = await readTree(join(site, 'big'))
    expect(there.size).to.equal(FILES)
    const began = systemClock.monotonic()
    const memory = { server: 0, worker: 0 }
    const id = await importOf('big', 'exp:big')
    const watch = async (files: number) => {
      const job = await reaches(id, files)
      for (const name of ['server', 'worker'] as const) {
        memory[name] = Math.max(memory[name], await peakOf(apart.pid(name)))
      }
      return job
    }
    await watch(FILES / 4)
    await apart.kill('worker')
    const killed = (await show(id)).files
    await house.startWorker()
    await watch(FILES / 2)
    await apart.kill('server')
    await house.restartServer()
    await watch((FILES * 3) / 4)
    const job = await watch(Number.POSITIVE_INFINITY)
    const seconds = (systemClock.monotonic() - began) / 1000
    const bytes = [...there.values()].reduce((sum, file) => sum + file.bytes, 0)
    expect(killed).to.be.within(FILES / 4, FILES)
    expect(job).to.include({ state: 'DONE', files: FILES, bytes, present: 0, leftOut: 0 })
    expect(job?.directories).to.deep.equal({ listed: 1 + 1 + 21 + Math.ceil(FILES / 2 / PER_DIRECTORY), left: 0 })
    expect(missingOrWrong(there, await catalogued('big', 'big'))).to.deep.equal([])
    const { items } = await house.client.listDids({ query: { scope: 'exp', prefix: 'big', type: 'DATASET' } })
    expect(items.map(({ did, files, bytes }) => ({ did, files, bytes }))).to.deep.equal([
      { did: 'exp:big', files: FILES, bytes },
    ])
    const db = house.database.open()
    expect(await brokenInvariants(await World.of(db))).to.deep.equal([])
    await db.close()
    const rate = (FILES / seconds).toFixed(0)
    const { server, worker } = memory
    systemTerminal.err(
      `      ${FILES} files in ${seconds.toFixed(1)} s: ${rate} files/s, killed twice; server ${server} MB, worker ${worker} MB at most\n`,
    )
  })

  it('again changes nothing', async () => {
    const began = systemClock.monotonic()
    const job = await reaches(await importOf('big', 'exp:big'), Number.POSITIVE_INFINITY)
    expect(job).to.include({ state: 'DONE', files: FILES, present: FILES, leftOut: 0 })
    const rate = (FILES / ((systemClock.monotonic() - began) / 1000)).toFixed(0)
    systemTerminal.err(`      again: ${rate} files/s\n`)
  })
})

/** Half of the files in one directory, the others in many. */
async function makeTree(root: string, count: number): Promise<void> {
  const path = (i: number): string => {
    if (i % 2 === 0) return `flat/f${i}`
    const directory = Math.floor(i / 2 / PER_DIRECTORY)
    return `deep/${directory % 20}/${directory}/f${i}`
  }
  for (let from = 0; from < count; from += 500) {
    const some = Array.from({ length: Math.min(500, count - from) }, (_, i) => from + i)
    for (const i of some) await mkdir(join(root, path(i), '..'), { recursive: true })
    await Promise.all(some.map(i => writeFile(join(root, path(i)), `file ${String(i).padStart(11, '0')}`)))
  }
}

/** The most memory that a process has had, MB. */
async function peakOf(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Math.round(Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024)
}
