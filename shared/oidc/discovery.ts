import { type CustomFetch, customFetch, discovery, None, type ServerMetadata } from 'openid-client'
import { WaybillError } from '../domain/errors.ts'
import type { Clock } from '../runtime/clock.ts'
import { findIssuerError, IssuerError } from './issuer-error.ts'
import { type Fresh, keepFresh } from './keep-fresh.ts'
import { printable } from './printable.ts'

const HOUR = 3_600_000

/** Throws `ISSUER_URL_INVALID` unless this can name an issuer (RFC 8414 section 2: https, no query, no fragment). */
export function checkIssuerUrl(url: string): void {
  const fine = URL.canParse(url) && /^https:\/\/[^/?#@\s][^?#@\s]*$/.test(url)
  if (!fine) {
    throw new WaybillError('ISSUER_URL_INVALID', `${printable(url)} cannot name an issuer: write https://host/path`, {
      status: 400,
    })
  }
}

/**
 * The issuer's metadata: found on first use, at `<url without its last slash>/.well-known/openid-configuration`, kept for
 * hours, and used on through an outage. `url` may end in `/` or not; it must be what the issuer calls itself, to the letter,
 * because that is what its tokens say in `iss`.
 */
export function createDiscovery(url: string, issuerFetch: CustomFetch, clock: Clock): Fresh<ServerMetadata> {
  checkIssuerUrl(url)
  return keepFresh({
    clock,
    refreshAfterMs: 6 * HOUR,
    staleForMs: 96 * HOUR,
    retryAfterMs: 1_000,
    load: () => discover(url, issuerFetch),
  })
}

async function discover(url: string, issuerFetch: CustomFetch): Promise<ServerMetadata> {
  let metadata: ServerMetadata
  try {
    const configuration = await discovery(new URL(url), 'discovery', undefined, None(), { [customFetch]: issuerFetch })
    metadata = configuration.serverMetadata()
  } catch (error) {
    throw (
      findIssuerError(error) ?? new IssuerError('ISSUER_NONSENSE', `${url} publishes no usable OpenID configuration`)
    )
  }
  if (metadata.issuer !== url) {
    const name = printable(metadata.issuer)
    throw new IssuerError('ISSUER_NONSENSE', `${url} calls itself ${name}: configure that name, to the last slash`)
  }
  return metadata
}
