import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Secret } from '../../shared/domain/secret.ts'
import { type Form, GRANT, type GrantType, OAuthError } from './oauth.ts'

/** A client as it is registered at the issuer. */
export interface Client {
  readonly id: string
  readonly secret: Secret
  readonly grantTypes: readonly GrantType[]
  /** Whether client credentials may carry `storage.*` scopes. In an exchange the subject token sets the limit. */
  readonly storageScopes: boolean
  readonly offlineAccess: boolean
  /** Life of the access tokens that this client gets, in seconds, whatever it presents to get them. */
  readonly accessTokenSeconds: number
}

export const CLIENT_NAMES = ['server', 'worker', 'manager'] as const
export type ClientName = (typeof CLIENT_NAMES)[number]

/** `server` mints, `worker` exchanges what was minted, `manager` only has tokens for the API. */
export function registerClient(name: ClientName, id: string, secret: Secret, accessTokenSeconds: number): Client {
  const registration = { id, secret, accessTokenSeconds, storageScopes: false, offlineAccess: false }
  switch (name) {
    case 'server':
      return { ...registration, grantTypes: [GRANT.clientCredentials], storageScopes: true }
    case 'worker':
      return { ...registration, grantTypes: Object.values(GRANT), offlineAccess: true }
    case 'manager':
      return { ...registration, grantTypes: [GRANT.clientCredentials] }
  }
}

/** HTTP Basic or `client_id` and `client_secret` in the form; not both (RFC 6749 section 2.3). */
export function authenticate(clients: readonly Client[], request: IncomingMessage, form: Form): Client {
  const basic = basicCredentials(request.headers.authorization)
  const posted = form.get('client_secret')
  if (basic !== undefined && posted !== undefined) {
    throw new OAuthError('invalid_request', 'the client authenticates in two ways at once')
  }
  const id = basic?.id ?? form.get('client_id')
  const secret = basic?.secret ?? posted
  const client = clients.find(candidate => candidate.id === id)
  if (client === undefined || secret === undefined || !isEqual(client.secret.reveal(), secret)) {
    throw new OAuthError('invalid_client', 'unknown client, or not its secret')
  }
  return client
}

export function requireGrant(client: Client, grantType: GrantType): void {
  if (!client.grantTypes.includes(grantType)) {
    throw new OAuthError('unauthorized_client', `the client ${client.id} may not use the grant type ${grantType}`)
  }
}

/** Both halves are form-encoded inside the Basic header: RFC 6749 section 2.3.1. */
function basicCredentials(header: string | undefined): { id: string; secret: string } | undefined {
  const encoded = /^basic +([A-Za-z0-9+/=]+) *$/i.exec(header ?? '')?.[1]
  if (encoded === undefined) return undefined
  const [id, ...secret] = Buffer.from(encoded, 'base64').toString('utf8').split(':')
  return { id: formDecode(id ?? ''), secret: formDecode(secret.join(':')) }
}

function formDecode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    throw new OAuthError('invalid_client', 'the Basic credentials are not form-encoded (RFC 6749 section 2.3.1)')
  }
}

function isEqual(expected: string, presented: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(expected), digest(presented))
}
