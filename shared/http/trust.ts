import { X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls'
import { WaybillError } from '../domain/errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Logger } from '../runtime/logger.ts'

/** Whom to believe. The context is another object after the certificates have changed, and the same one until then. */
export interface Trust {
  secureContext(): SecureContext
}

export interface TrustOptions {
  /** A PEM file with one or more CA certificates, or a directory of them (`*.pem`, `*.0`: hashed, as IGTF ships it). */
  path?: string
  /** Believe Node's own roots too. Without a `path` they are all there is. */
  defaultRoots: boolean
  clock: Clock
  log: Logger
}

const CHECK_EVERY_MS = 60_000
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/**
 * Reads the CA certificates now, and again when a file or the directory has changed: looked at no more than once a minute.
 * Throws `TRUST_UNREADABLE` when they cannot be read now; when that happens later, the last good ones stay in force.
 */
export function createTrust({ path, defaultRoots, clock, log }: TrustOptions): Trust {
  if (path === undefined) {
    const context = createSecureContext(defaultRoots ? {} : { ca: [] })
    return { secureContext: () => context }
  }
  const own = path
  let seen = ''
  let checkedAt = clock.monotonic()
  let context = load()

  function load(): SecureContext {
    const files = certificateFiles(own)
    const mark = fingerprint(files)
    const certificates = readCertificates(files, log)
    if (certificates.length === 0) throw new WaybillError('TRUST_EMPTY', `${own}: no CA certificate in it`)
    const loaded = createSecureContext({ ca: defaultRoots ? [...rootCertificates, ...certificates] : certificates })
    seen = mark
    return loaded
  }

  return {
    secureContext() {
      const now = clock.monotonic()
      if (now - checkedAt < CHECK_EVERY_MS) return context
      checkedAt = now
      try {
        if (fingerprint(certificateFiles(own)) !== seen) context = load()
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error)
        log.warn({ path: own, why }, 'CA certificates could not be read again; the last good ones stay in force')
      }
      return context
    },
  }
}

function certificateFiles(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path]
    const names = readdirSync(path).filter(name => name.endsWith('.pem') || name.endsWith('.0'))
    return names.sort().map(name => join(path, name))
  } catch (error) {
    throw new WaybillError('TRUST_UNREADABLE', `${path}: the CA certificates cannot be read; check path and rights`, {
      cause: error,
    })
  }
}

/** Changes when a file comes, goes, or is written. A dangling link (IGTF has them during updates) counts as absent. */
function fingerprint(files: readonly string[]): string {
  return files
    .map(file => {
      const status = statSync(file, { throwIfNoEntry: false })
      return status === undefined ? '' : `${file}:${status.mtimeMs}:${status.size}`
    })
    .join('\n')
}

/** Each certificate once (IGTF lists them under two names); one that does not parse is left out with a warning. */
function readCertificates(files: readonly string[], log: Logger): string[] {
  const found = new Set<string>()
  for (const file of files) {
    try {
      for (const pem of readFileSync(file, 'utf8').match(CERTIFICATE) ?? [])
        found.add(new X509Certificate(pem).toString())
    } catch {
      log.warn({ file }, 'not a readable CA certificate: left out')
    }
  }
  return [...found]
}
