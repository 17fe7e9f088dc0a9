import { execFile } from 'node:child_process'
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { environment } from '../shared/runtime/environment.ts'
import { timeOf } from './harness.ts'

const run = promisify(execFile)

export interface TodaysCopy {
  /** For lists and certificates. */
  readonly directory: string
  readonly caFile: string
  /** Directories, with a slash at the end. */
  readonly source: string
  readonly destination: string
  readonly files: readonly string[]
  /** Good at both. */
  readonly token: string
  readonly atOnce: number
}

/** As sites do it by hand: one process for a list of files. Seconds. */
export async function copyByGfal(task: TodaysCopy): Promise<number> {
  const certificates = join(task.directory, 'certificates')
  await mkdir(certificates, { recursive: true })
  await copyFile(task.caFile, join(certificates, 'ca.pem'))
  await run('openssl', ['rehash', certificates])
  const list = join(task.directory, 'gfal.list')
  const dav = (url: string): string => url.replace(/^https/, 'davs')
  await writeFile(list, task.files.map(file => `${dav(task.source + file)}\n`).join(''))
  const env = {
    ...environment,
    BEARER_TOKEN: task.token,
    X509_CERT_DIR: certificates,
    // The scripts take the first python on the PATH, which need not be Debian's.
    GFAL_PYTHONBIN: '/usr/bin/python3',
  }
  const pull = ['--copy-mode', 'pull', '--checksum', 'ADLER32']
  const ms = await timeOf(() => run('gfal-copy', [...pull, '--from-file', list, dav(task.destination)], { env }))
  return ms / 1000
}

/** As a shell script does it: a curl for each COPY, some at a time. Seconds. */
export async function copyByCurl(task: TodaysCopy): Promise<number> {
  const settings = join(task.directory, 'curl.config')
  const headers = [
    `Authorization: Bearer ${task.token}`,
    `TransferHeaderAuthorization: Bearer ${task.token}`,
    'Credential: none',
    'Overwrite: F',
  ]
  const lines = [
    'silent',
    'fail',
    'request = COPY',
    `cacert = "${task.caFile}"`,
    ...headers.map(h => `header = "${h}"`),
  ]
  await writeFile(settings, `${lines.join('\n')}\n`, { mode: 0o600 })
  const list = join(task.directory, 'curl.list')
  await writeFile(list, task.files.map(file => `${file}\n`).join(''))
  const command = `curl --config ${settings} --header 'Source: ${task.source}'{} ${task.destination}{} | grep -q ^success`
  const ms = await timeOf(() =>
    run('parallel', ['--will-cite', '--jobs', String(task.atOnce), '--arg-file', list, command]),
  )
  return ms / 1000
}
