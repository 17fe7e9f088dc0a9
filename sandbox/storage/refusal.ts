import { hasCode } from '../private-file.ts'

/** An HTTP answer that says no. `message` becomes the body: it names no secret. */
export class Refusal extends Error {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, message: string, headers: Record<string, string> = {}) {
    super(message)
    this.status = status
    this.headers = headers
  }
}

/** What the file system's errors mean to a WebDAV client; `undefined` for what is our own fault. */
export function refusalOf(error: unknown): Refusal | undefined {
  if (error instanceof Refusal) return error
  if (hasCode(error, 'ENOENT')) return new Refusal(404, 'no such file or directory')
  if (hasCode(error, 'ENOTDIR', 'EISDIR', 'ENOTEMPTY', 'EEXIST', 'EINVAL')) {
    return new Refusal(409, 'a file is where a directory should be, a directory where a file, or it is not empty')
  }
  if (hasCode(error, 'ELOOP')) return new Refusal(403, 'a symbolic link is there: links are not followed here')
  if (hasCode(error, 'ENAMETOOLONG')) return new Refusal(400, 'a name in the path is too long')
  if (hasCode(error, 'ENOSPC', 'EDQUOT')) return new Refusal(507, 'no space left')
  return undefined
}
