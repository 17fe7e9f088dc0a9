import type { Readable } from 'node:stream'
import { parseDigests } from '../../shared/storage/digest.ts'
import { CopyFailed, copyFailureOf } from './copy-failure.ts'
import type { Exchange, Storage } from './exchange.ts'
import { reportCopy } from './perf-markers.ts'
import type { Progress } from './progress.ts'
import { Refusal } from './refusal.ts'
import { askRemote, remoteAddress, remoteRefusal } from './remote.ts'
import { abandon, beginUpload, commit, placement, prepareParents, receive } from './write.ts'

/** COPY at the destination, which fetches. */
export async function pull(
  storage: Storage,
  exchange: Exchange,
  source: string,
  headers: Record<string, string>,
): Promise<void> {
  const { behaviour } = storage
  if (!behaviour.pull) throw new Refusal(501, 'pull is not supported')
  const url = remoteAddress(source)
  if (behaviour.asksSourceFirst) await demandSource(storage, exchange, url, headers)
  const mode = await placement(storage, exchange, exchange.mayOverwrite)
  await prepareParents(storage, exchange)
  const upload = await beginUpload(storage, exchange, mode)
  await reportCopy(storage, exchange, url, async (progress, signal) => {
    const body = await fetchSource(progress, signal).catch(async error => {
      await abandon(storage, exchange, upload)
      throw error
    })
    await receive(storage, exchange, upload, counted(body, progress), progress.expected)
    await commit(storage, exchange, upload, mode)
  })

  async function fetchSource(progress: Progress, signal: AbortSignal): Promise<Readable> {
    const wanted = behaviour.wantsChecksum ? { 'Want-Digest': 'adler32, md5;q=0.5' } : {}
    const answer = await askRemote(storage, { method: 'GET', url, headers: { ...headers, ...wanted }, signal })
    if (answer.status !== 200) throw await remoteRefusal(answer)
    if (exchange.requiresChecksum(storage) && Object.keys(parseDigests(answer.headers)).length === 0) {
      answer.body.destroy()
      throw new CopyFailed({ kind: 'no-checksum', words: 'the source tells no checksum' })
    }
    const length = answer.headers['content-length']
    progress.expected = length === undefined ? undefined : Number(length)
    return answer.body
  }
}

/** XRootD 6: what a HEAD at the source brings is the answer, and nothing was opened here (facts/http-tpc.md section 5). */
async function demandSource(
  storage: Storage,
  exchange: Exchange,
  url: URL,
  headers: Record<string, string>,
): Promise<void> {
  try {
    const answer = await askRemote(storage, { method: 'HEAD', url, headers, signal: storage.stopping })
    answer.body.destroy()
    if (answer.status !== 200) throw await remoteRefusal(answer)
  } catch (error) {
    const failure = copyFailureOf(error, exchange.asked, { bytes: 0 }, storage.behaviour)
    const { status, words } = storage.behaviour.dialect.refusePull(failure, exchange.asked)
    throw new Refusal(status, words)
  }
}

export async function* counted(chunks: AsyncIterable<Uint8Array>, progress: Progress): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    progress.bytes += chunk.length
    yield chunk
  }
}
