import { type Capability, includes, isStorageScope, parseCapability } from '../wlcg.ts'
import type { Client } from './clients.ts'
import { OAuthError } from './oauth.ts'

export const OFFLINE_ACCESS = 'offline_access'

/**
 * Says only that a token follows the WLCG profile; IAM allows it to every client. API tokens, for no storage, ask for
 * it.
 */
const PROFILE = 'wlcg'

/** What a client that names no scope gets: ALL of its own, as INDIGO IAM does (facts/tokens.md section 2). */
const ALL_STORAGE_SCOPES = ['storage.read:/', 'storage.create:/', 'storage.modify:/', 'storage.stage:/']

/** The scopes of a client-credentials token. Throws `invalid_scope`. */
export function mintableScopes(client: Client, asked: readonly string[]): string[] {
  if (asked.length === 0) return client.storageScopes ? ALL_STORAGE_SCOPES : []
  for (const scope of asked) {
    if (scope === PROFILE) continue
    if (!client.storageScopes || !isStorageScope(scope)) throw notAllowed(scope, `to the client ${client.id}`)
    readCapability(scope)
  }
  return [...asked]
}

/** The scopes of an exchanged token: no wider than the subject token's. Throws `invalid_request`, `invalid_scope`. */
export function exchangeableScopes(client: Client, subject: readonly string[], asked: readonly string[]): string[] {
  if (asked.length === 0) throw new OAuthError('invalid_request', 'scope is mandatory in a token exchange')
  const offline = asked.includes(OFFLINE_ACCESS)
  if (offline && !client.offlineAccess) throw notAllowed(OFFLINE_ACCESS, `to the client ${client.id}`)
  return narrowedScopes(
    subject,
    asked.filter(scope => scope !== OFFLINE_ACCESS),
  )
}

/** `asked` when all of it lies within `held`; all of `held` when nothing is asked. Throws `invalid_scope`. */
export function narrowedScopes(held: readonly string[], asked: readonly string[]): string[] {
  if (asked.length === 0) return [...held]
  const capabilities = held.filter(isStorageScope).map(readCapability)
  for (const scope of asked) {
    if (held.includes(scope)) continue
    const within = isStorageScope(scope) && isWithin(capabilities, readCapability(scope))
    if (!within) throw notAllowed(scope, 'by the token presented')
  }
  return [...asked]
}

/** Verb by verb: IAM's matcher doesn't know that modify contains create, so nobody should learn to rely on it. */
function isWithin(held: readonly Capability[], asked: Capability): boolean {
  return held.some(capability => includes(capability, asked))
}

function readCapability(scope: string): Capability {
  const capability = parseCapability(scope)
  if (!capability.ok) throw new OAuthError('invalid_scope', capability.reason)
  return capability.value
}

function notAllowed(scope: string, by: string): OAuthError {
  return new OAuthError('invalid_scope', `the scope ${scope} is not allowed ${by}`)
}
