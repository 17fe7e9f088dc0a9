import { hasCode } from '../private-file.ts'
import type { RefusalKind } from './dialect.ts'

/** An HTTP answer that says no. `message` becomes the body: it names no secret. */
export class Refusal extends Error {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** Of refusals that real storages word each in their own way. */
  readonly kind: RefusalKind | undefined

  constructor(status: number, message: string, headers: Record<string, string> = {}, kind?: RefusalKind) {
    super(message)
    this.status = status
    this.headers = headers
    this.kind = kind
  }
}

export function missing(): Refusal {
  return new Refusal(404, 'no such file or directory', {}, 'missing')
}

/** A file that is to be kept: `Overwrite: F`, `If-None-Match`, or a token that may not replace it. */
export function exists(message = 'a file is there already'): Refusal {
  return new Refusal(412, message, {}, 'exists')
}

export function withoutParent(): Refusal {
  return new Refusal(409, 'the parent directory is missing', {}, 'no-parent')
}

export function full(message = 'no space left'): Refusal {
  return new Refusal(507, message, {}, 'full')
}

/** What the file system's errors mean to a WebDAV client; `undefined` for what is our own fault. */
export function refusalOf(error: unknown): Refusal | undefined {
  if (error instanceof Refusal) return error
  if (hasCode(error, 'ENOENT')) return missing()
  if (hasCode(error, 'ENOTDIR', 'EISDIR', 'ENOTEMPTY', 'EEXIST', 'EINVAL')) {
    return new Refusal(409, 'a file is where a directory should be, a directory where a file, or it is not empty')
  }
  if (hasCode(error, 'ELOOP')) return new Refusal(403, 'a symbolic link is there: links are not followed here')
  if (hasCode(error, 'ENAMETOOLONG')) return new Refusal(400, 'a name in the path is too long')
  if (hasCode(error, 'ENOSPC', 'EDQUOT')) return full()
  return undefined
}
