import type { Exchange, Storage } from './exchange.ts'
import { Refusal } from './refusal.ts'
import type { TapeFront } from './tape.ts'
import { readFiles, readPaths, type WantedPath } from './tape-bodies.ts'
import { TAPE_DIALECTS } from './tape-dialects.ts'
import type { RecalledFile, StageRequest } from './tape-recalls.ts'

/** RFC 8615. Anybody may read it. */
export const TAPE_WELL_KNOWN = '/.well-known/wlcg-tape-rest-api'
const BASE = ['api', 'v1']

/** Whether a path is the tape API's, and no file's. */
export function isTapeApi(path: readonly string[]): boolean {
  return BASE.every((segment, index) => path[index] === segment)
}

export function describeTapeApi({ name, url }: Storage): string {
  const endpoints = [{ uri: `${url}/${BASE.join('/')}`, version: 'v1', metadata: {} }]
  return JSON.stringify({ sitename: name, description: 'the tape API of an embedded storage', endpoints })
}

type Act = (storage: Storage, tape: TapeFront, exchange: Exchange, id: string) => Promise<void>

/** By verb and the path below the base, where `*` is the name of a request. */
const ACTS: Readonly<Record<string, Act>> = {
  'POST stage': stage,
  'GET stage/*': progress,
  'DELETE stage/*': forget,
  'POST stage/*/cancel': cancel,
  'POST release/*': release,
  'POST archiveinfo': archiveInfo,
}

/**
 * WLCG Tape REST API v1 (facts/http-tpc.md section 6). `stage` scopes allow all of it, on every path; `read`, `create`, `modify`
 * and `poll` allow to ask where files are (profile 1.3, section 2.2.1). Refusals are RFC 7807's problems.
 */
export async function answerTapeApi(storage: Storage, tape: TapeFront, exchange: Exchange): Promise<void> {
  const [resource = '', id = '', ...rest] = exchange.path.slice(BASE.length)
  const target = [resource, ...(id === '' ? [] : ['*']), ...rest].join('/')
  const act = ACTS[`${exchange.request.method} ${target}`]
  try {
    tellTooMany(tape)
    if (act === undefined) throw new Refusal(404, 'there is no such resource')
    await act(storage, tape, exchange, id)
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    const problem = { status: error.status, title: error.message }
    answerJson(exchange, error.status, problem, { ...error.headers, 'Content-Type': 'application/problem+json' })
  }
}

function tellTooMany({ settings }: TapeFront): void {
  if (settings.tooMany <= 0) return
  settings.tooMany -= 1
  const after = settings.retryAfterSeconds
  throw new Refusal(429, 'too many requests', after === undefined ? {} : { 'Retry-After': String(after) })
}

async function stage(storage: Storage, tape: TapeFront, exchange: Exchange): Promise<void> {
  const files = await readFiles(exchange.request, tape.settings.dialect)
  demandAll(exchange, 'stage', files)
  demandFew(tape, files)
  const { id } = tape.recalls.begin(files)
  answerJson(exchange, 201, { requestId: id }, { Location: `${storage.url}/${BASE.join('/')}/stage/${id}` })
}

async function progress(_storage: Storage, tape: TapeFront, exchange: Exchange, id: string): Promise<void> {
  const request = known(tape, id)
  demandAll(exchange, 'poll', request.files.values())
  answerJson(exchange, 200, await TAPE_DIALECTS[tape.settings.dialect].progress(request, tape.copies))
}

async function forget(_storage: Storage, tape: TapeFront, exchange: Exchange, id: string): Promise<void> {
  const request = known(tape, id)
  demandAll(exchange, 'stage', request.files.values())
  tape.recalls.forget(request)
  exchange.answer(200, '')
}

async function cancel(_storage: Storage, tape: TapeFront, exchange: Exchange, id: string): Promise<void> {
  const paths = await readPaths(exchange.request)
  demandAll(exchange, 'stage', paths)
  const request = known(tape, id)
  const files = paths.map(({ path }): RecalledFile => {
    const file = request.files.get(`/${path.join('/')}`)
    if (file === undefined) throw new Refusal(400, `/${path.join('/')} does not belong to the STAGE request ${id}`)
    return file
  })
  tape.recalls.cancel(files)
  exchange.answer(200, '')
}

/** 200 whatever the request's name is, as from dCache and EOS. EOS has no pins: what nobody else wants leaves the disk. */
async function release(_storage: Storage, tape: TapeFront, exchange: Exchange, id: string): Promise<void> {
  const paths = await readPaths(exchange.request)
  demandAll(exchange, 'stage', paths)
  demandFew(tape, paths)
  for (const { path } of paths) {
    await tape.copies.unpin(path, id)
    if (tape.settings.dialect === 'eos') await tape.copies.evict(path)
  }
  exchange.answer(200, '')
}

async function archiveInfo(_storage: Storage, tape: TapeFront, exchange: Exchange): Promise<void> {
  const { dialect, filesPerAnswer } = tape.settings
  const paths = await readPaths(exchange.request)
  demandAll(exchange, 'poll', paths)
  const looked = dialect === 'dcache' ? paths.slice(0, filesPerAnswer) : paths
  const infos = looked.toReversed().map(async ({ path, sent }) => {
    const locality = await tape.copies.locality(path)
    return { path: sent, ...(locality === undefined ? { error: TAPE_DIALECTS[dialect].missing(sent) } : { locality }) }
  })
  answerJson(exchange, 200, await Promise.all(infos))
}

function known(tape: TapeFront, id: string): StageRequest {
  const request = tape.recalls.find(id)
  if (request === undefined) throw new Refusal(404, `there is no STAGE request ${id}`)
  return request
}

/** 403 before anything is said of the files. */
function demandAll(
  exchange: Exchange,
  operation: 'stage' | 'poll',
  files: Iterable<{ readonly path: readonly string[] }>,
): void {
  for (const { path } of files) exchange.demand(operation, path)
}

function demandFew({ settings }: TapeFront, files: readonly WantedPath[]): void {
  if (settings.dialect === 'dcache' && files.length > settings.filesPerRequest) {
    throw new Refusal(413, `the number of targets ${files.length} exceeds the maximum ${settings.filesPerRequest}`)
  }
}

function answerJson(exchange: Exchange, status: number, body: unknown, headers: Record<string, string> = {}): void {
  exchange.answer(status, JSON.stringify(body), { 'Content-Type': 'application/json', ...headers })
}
