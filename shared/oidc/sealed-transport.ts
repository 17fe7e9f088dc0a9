import { CompactEncrypt, compactDecrypt, exportJWK, generateKeyPair, importJWK } from 'jose'
import { z } from 'zod'
import { WaybillError } from '../domain/errors.ts'
import { Secret } from '../domain/secret.ts'

/** An EC P-256 public key as a JWK (RFC 7518 section 6.2.1). */
export interface PublicJwk {
  kty: 'EC'
  crv: 'P-256'
  x: string
  y: string
}

/** Who can open what is sealed for `publicJwk`. The private key never leaves the process, not even to its owner. */
export interface Recipient {
  publicJwk: PublicJwk
  /** Rejects with `SEALED_TOKEN_REFUSED` if it was not sealed for this key and this context. */
  open(jwe: string, context: string): Promise<Secret>
}

const ALGORITHM = 'ECDH-ES+A256KW'
const ENCRYPTION = 'A256GCM'

const coordinate = z.string().regex(/^[A-Za-z0-9_-]{43}$/)
/** Other members (`use`, `kid`, ...) are dropped; `d` must not be there: a private key that travelled is nobody's own. */
const publicJwkSchema = z.object({
  kty: z.literal('EC'),
  crv: z.literal('P-256'),
  x: coordinate,
  y: coordinate,
  d: z.undefined().optional(),
})

/**
 * Tokens travel from the server to a worker's session, or to a person's upload or download, as a compact JWE for an ephemeral
 * key that the session presented at its start. So no answer of the API holds a token in clear, whoever logs or caches it.
 */
export async function newRecipient(): Promise<Recipient> {
  const { privateKey, publicKey } = await generateKeyPair(ALGORITHM, { crv: 'P-256', extractable: false })
  const { x, y } = publicJwkSchema.parse(await exportJWK(publicKey))
  return {
    publicJwk: { kty: 'EC', crv: 'P-256', x, y },
    async open(jwe, context) {
      try {
        const { plaintext, protectedHeader } = await compactDecrypt(jwe, privateKey, {
          keyManagementAlgorithms: [ALGORITHM],
          contentEncryptionAlgorithms: [ENCRYPTION],
        })
        if (protectedHeader.context === context) return new Secret(new TextDecoder().decode(plaintext))
      } catch {
        // Why it cannot be opened is nothing a caller could act on, and the error could say too much.
      }
      throw new WaybillError('SEALED_TOKEN_REFUSED', `what came is not sealed for this session and ${context}`)
    },
  }
}

/**
 * Seals for the holder of the key in `publicJwk`, which comes from outside. `context` (`grant:17:3`) goes into the protected
 * header, which the cipher authenticates (RFC 7516 section 5.1 step 14): a token sealed for one use cannot be served for
 * another. Rejects with `RECIPIENT_KEY_INVALID` (400).
 */
export async function sealFor(publicJwk: unknown, secret: Secret, context: string): Promise<string> {
  const key = await importPublicKey(publicJwk)
  return new CompactEncrypt(new TextEncoder().encode(secret.reveal()))
    .setProtectedHeader({ alg: ALGORITHM, enc: ENCRYPTION, context })
    .encrypt(key)
}

/** Rejects with `RECIPIENT_KEY_INVALID` (400): to be asked before anything is done for who brings the key. */
export async function checkRecipientKey(publicJwk: unknown): Promise<void> {
  await importPublicKey(publicJwk)
}

async function importPublicKey(publicJwk: unknown): ReturnType<typeof importJWK> {
  const parsed = publicJwkSchema.safeParse(publicJwk)
  try {
    if (parsed.success) {
      const { kty, crv, x, y } = parsed.data
      return await importJWK({ kty, crv, x, y }, ALGORITHM)
    }
  } catch {
    // The numbers are no point of the curve.
  }
  throw new WaybillError('RECIPIENT_KEY_INVALID', 'the key must be a public EC P-256 key in JWK form', {
    status: 400,
    field: 'key',
  })
}
