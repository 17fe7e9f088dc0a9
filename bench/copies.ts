import { chmod } from 'node:fs/promises'
import { readTree } from '../test/interop/file-set.ts'
import { type RuleStage, startRuleStage } from '../test/interop/rule-stage.ts'
import type { BareResult, BareRound } from './bare-loop.ts'
import { benchDatabases } from './databases.ts'
import { around, type Bench, number, runBench, spreadOf } from './harness.ts'
import { type Part, Processes, startPart } from './processes.ts'
import { moveFiles } from './rule-rounds.ts'
import { copyByCurl, copyByGfal, type TodaysCopy } from './today.ts'

const TODAYS_FILES = 100
const GOAL = 0.9
const BOUND =
  'CPU, as profiled on 2026-11-27 on two cores: both are full, three quarters of it XRootD and its TLS handshakes (4.8 ms for each file). The bare loop takes 0.8 ms, the worker 1.2 and the server 0.8 (12 claims and reports a second of some 45 files each: default limits of 60 let no more be held; half of it SQLite and its fsync). From the rule to its first COPY it takes 0.17 s (expansion, minting, exchange), 2 % of a round. The slots of the worker are busy 99 % of the time'
/** gfal2 has one token for both sides: it must be good at every storage. */
const ANYWHERE = 'https://wlcg.cern.ch/jwt/v1/any'

interface Case {
  readonly bytes: number
  readonly atOnce: number
  readonly mode: 'pull' | 'push'
}

const CASES: readonly Case[] = [
  { bytes: 4_000, atOnce: 8, mode: 'pull' },
  { bytes: 4_000, atOnce: 16, mode: 'pull' },
  { bytes: 100_000, atOnce: 8, mode: 'pull' },
  { bytes: 100_000, atOnce: 16, mode: 'pull' },
]
/** Rounds that aren't counted: Node compiles what is hot. */
const WARM = 2
/** In the long form. */
const PUSH: Case = { bytes: 4_000, atOnce: 8, mode: 'push' }

interface Form {
  readonly files: number
  readonly rounds: number
}

await runBench(
  {
    name: 'copies',
    measures:
      'Small files between two real XRootD servers over https with tokens: from a rule to the last verified file, against a loop that only sends COPY and a verifying HEAD.',
    notCovered:
      'networks, disks that are not this machine’s, large files (the storages are the limit then), other storages than XRootD 5.5.3, storages that answer slowly.',
  },
  async bench => {
    const form = { files: 2_000, rounds: bench.long ? 5 : 3 }
    const table = bench.table(
      'Verified files a second',
      'size',
      'at once',
      'mode',
      'Waybill',
      'bare loop',
      'of the bare loop',
    )
    const today = bench.table(
      `What people do now, ${TODAYS_FILES} files, 8 at once; nothing is verified by curl`,
      'size',
      'gfal-copy --from-file',
      'curl and GNU parallel',
      'Waybill against them',
    )
    for (const wanted of bench.long ? [...CASES, PUSH] : CASES) {
      const { measured, rates } = await inFreshStage(bench, wanted, form)
      const waybill = spreadOf(measured.map(round => round.waybill))
      const ratio = spreadOf(measured.map(round => round.waybill / round.bare))
      const size = `${number(wanted.bytes / 1000)} kB`
      const bare = spreadOf(measured.map(round => round.bare))
      table.row(size, String(wanted.atOnce), wanted.mode, around(waybill), around(bare), around(ratio, 2))
      if (wanted.mode === 'pull') {
        const what = `${size}, ${wanted.atOnce} at once: of the bare loop`
        bench.goal({ what, reached: ratio.median, atLeast: GOAL, digits: 2, bound: BOUND })
      }
      if (rates === undefined) continue
      const times = [rates.gfal, rates.curl].map(rate => `${number(waybill.median / rate, 1)} times`).join(', ')
      today.row(size, `${number(rates.gfal, 1)} a second`, `${number(rates.curl, 1)} a second`, times)
    }
    bench.condition(
      `${number(form.files)} files a round, ${form.rounds} rounds of each in turn after ${WARM} to warm up; two XRootD servers, the issuer, server, worker and loop on this machine; SQLite`,
    )
    bench.condition(
      'kept connections, a pool for COPY and one for all else; one token for each directory and side; the worker has as many slots as are copied at once',
    )
  },
)

interface CopyStage extends RuleStage {
  readonly bare: Part<BareRound, BareResult>
}

async function startCopyStage(atOnce: number): Promise<CopyStage> {
  const [sqlite] = benchDatabases
  if (sqlite === undefined) throw new Error('no database')
  const bare = startPart<BareRound, BareResult>('bare-loop')
  const stage = await startRuleStage({
    launch: new Processes(),
    database: directory => sqlite.house(directory),
    worker: { concurrency: atOnce },
  })
  const stop = async (): Promise<void> => {
    await bare.stop()
    await stage.stop()
  }
  return { ...stage, bare, stop }
}

function sourceOf(bytes: number): string {
  return `FROM-${bytes}`
}

function datasetOf(bytes: number): string {
  return `files-${bytes}`
}

/** With servers of its own: a worker has as many slots as are copied at once. */
async function inFreshStage(bench: Bench, wanted: Case, form: Form) {
  const stage = await startCopyStage(wanted.atOnce)
  try {
    const measured = await measure(bench, stage, wanted, form)
    const asPeople = wanted.atOnce === 8 && wanted.mode === 'pull'
    return { measured, rates: asPeople ? await todaysRates(bench, stage, wanted.bytes) : undefined }
  } finally {
    await stage.stop()
  }
}

async function measure(bench: Bench, stage: CopyStage, wanted: Case, form: Form) {
  const { bytes, atOnce, mode } = wanted
  const files = await place(stage, bytes, form.files)
  const measured = []
  for (let round = 0; round < WARM + form.rounds; round += 1) {
    const bare = await bareRound(stage, wanted, files, `bare-${round}`)
    const name = `TO-${round}`
    await stage.addRse(name, stage.far, { canPull: mode === 'pull' })
    await stage.link(sourceOf(bytes), name)
    const waybill = files.length / (await moveFiles(stage.house, datasetOf(bytes), name))
    bench.progress(`${bytes} bytes, ${atOnce} at once, ${mode}: ${number(waybill)} a second, bare loop ${number(bare)}`)
    if (round >= WARM) measured.push({ waybill, bare })
  }
  return measured
}

/** Names and checksums of the files at the source. */
async function place(stage: CopyStage, bytes: number, count: number): Promise<BareRound['files']> {
  const directory = await stage.addRse(sourceOf(bytes), stage.near)
  const dataset = `exp:${datasetOf(bytes)}`
  await stage.place(
    sourceOf(bytes),
    directory,
    Array.from({ length: count }, (_, i) => ({ did: `${dataset}/f${i}`, dataset, bytes })),
  )
  return [...(await readTree(directory))].map(([path, { adler32 }]) => ({
    name: path.slice(path.lastIndexOf('/') + 1),
    adler32,
  }))
}

function sourceUrl({ near }: CopyStage, bytes: number): string {
  return `${near.url}/${sourceOf(bytes).toLowerCase()}/exp/${datasetOf(bytes)}/`
}

/** Verified files a second. */
async function bareRound(
  stage: CopyStage,
  { bytes, atOnce, mode }: Case,
  files: BareRound['files'],
  directory: string,
): Promise<number> {
  const { house, near, far, bare } = stage
  const destination = await makeDirectory(stage, directory)
  const scopes = [`storage.create:/${directory}`, `storage.read:/${directory}`]
  const { seconds } = await bare.ask({
    caFile: house.sandbox.authority.caFile,
    concurrency: atOnce,
    fresh: false,
    mode,
    source: sourceUrl(stage, bytes),
    destination,
    sourceToken: (await house.token('server', near.audience, ['storage.read:/'])).reveal(),
    destinationToken: (await house.token('server', far.audience, scopes)).reveal(),
    files,
  })
  return files.length / seconds
}

/** Its URL, with a slash at the end. */
async function makeDirectory({ house, far }: CopyStage, directory: string): Promise<string> {
  const url = `${far.url}/${directory}/`
  const token = await house.token('server', far.audience, [`storage.create:/${directory}`])
  const headers = { Authorization: `Bearer ${token.reveal()}` }
  const { status } = await house.http.request({ method: 'MKCOL', url, headers })
  if (status !== 201) throw new Error(`MKCOL ${url}: ${status}`)
  return url
}

/** Files a second, by gfal-copy and by curl. */
async function todaysRates(bench: Bench, stage: CopyStage, bytes: number): Promise<{ gfal: number; curl: number }> {
  const files = Array.from({ length: TODAYS_FILES }, (_, i) => `f${i}`)
  const { house, near, far } = stage
  const { caFile } = house.sandbox.authority
  await chmod(house.directory, 0o755)
  const rates: number[] = []
  for (const [tool, copy] of [
    ['gfal', copyByGfal],
    ['curl', copyByCurl],
  ] as const) {
    const directory = `${tool}-${bytes}`
    const task: TodaysCopy = {
      directory: house.directory,
      caFile,
      source: sourceUrl(stage, bytes),
      destination: await makeDirectory(stage, directory),
      files,
      token: (await house.token('server', ANYWHERE, ['storage.read:/', `storage.modify:/${directory}`])).reveal(),
      atOnce: 8,
    }
    const seconds = await copy(task)
    const arrived = await readTree(`${far.dataDirectory}/${directory}`)
    if (arrived.size !== files.length) throw new Error(`${tool} brought ${arrived.size} of ${files.length} files`)
    bench.progress(`${bytes} bytes, from ${near.audience}: ${tool} ${number(files.length / seconds, 1)} a second`)
    rates.push(files.length / seconds)
  }
  const [gfal = 0, curl = 0] = rates
  return { gfal, curl }
}
