import type { IncomingMessage } from 'node:http'
import { wireName } from '../../shared/http/wire.ts'

/**
 * Forgets headers whose names are not written as they are documented, as XRootD before 5.7 does not know them
 * (facts/http-tpc.md section 1).
 */
export function keepExactNames({ rawHeaders, headers }: IncomingMessage): void {
  const written = new Set(rawHeaders.filter((_, index) => index % 2 === 0))
  for (const name of Object.keys(headers)) {
    if (!written.has(wireName(name))) delete headers[name]
  }
}
