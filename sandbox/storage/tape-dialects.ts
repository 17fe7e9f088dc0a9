import type { TapeCopies } from './tape-copies.ts'
import type { RecalledFile, StageRequest } from './tape-recalls.ts'

/**
 * The answers of the two dialects. dCache: states, milliseconds. EOS: where the file is now, seconds; a file whose recall was
 * cancelled looks like one that is still to come. Neither keeps the order of the request.
 */
export interface TapeDialect {
  progress(request: StageRequest, copies: TapeCopies): Promise<object>
  /** What archiveinfo says of a file that isn't there. */
  missing(path: string): string
}

const DCACHE: TapeDialect = {
  progress: async ({ id, createdAt, files }) => {
    const all = [...files].toReversed()
    const started = all.flatMap(([, { startedAt }]) => startedAt ?? [])
    const finished = all.flatMap(([, { finishedAt }]) => finishedAt ?? [])
    return {
      id,
      createdAt,
      startedAt: started.length === 0 ? createdAt : Math.min(...started),
      ...(finished.length === all.length && { completedAt: Math.max(...finished) }),
      files: all.map(([path, { startedAt, finishedAt, error, state }]) => ({
        path,
        ...(startedAt !== undefined && { startedAt }),
        ...(finishedAt !== undefined && { finishedAt }),
        ...(error !== undefined && { error }),
        state,
      })),
    }
  },
  missing: path => `No such file or directory ${path}`,
}

const EOS: TapeDialect = {
  progress: async ({ id, createdAt, files }, copies) => {
    const seconds = Math.floor(createdAt / 1000)
    const answers = [...files].toReversed().map(([path, file]) => residency(path, file, copies))
    return { id, createdAt: seconds, startedAt: seconds, files: await Promise.all(answers) }
  },
  missing: () => 'USER ERROR: file does not exist or is not accessible to you',
}

async function residency(path: string, { error, path: segments }: RecalledFile, copies: TapeCopies): Promise<object> {
  const locality = await copies.locality(segments)
  const onDisk = locality === 'DISK' || locality === 'DISK_AND_TAPE'
  return { path, ...(error !== undefined && { error }), onDisk }
}

export const TAPE_DIALECTS = { dcache: DCACHE, eos: EOS }
