import { readFile } from 'node:fs/promises'
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose'
import { createPrivateFile, isMissing } from '../private-file.ts'

/** Both must be supported by every verifier (facts/tokens.md section 1, statement 4). */
export type SigningAlgorithm = 'ES256' | 'RS256'
type Key = Awaited<ReturnType<typeof importJWK>>

export interface SigningKey {
  readonly algorithm: SigningAlgorithm
  readonly kid: string
  readonly privateKey: Key
  readonly publicKey: Key
  /** Without the private members: fit for the JWKS. */
  readonly publicJwk: JWK
}

/** The key in `file` (a private JWK, mode 0600), made when it is missing, so that tokens outlive a restart. */
export async function ensureSigningKey(file: string, algorithm: SigningAlgorithm): Promise<SigningKey> {
  const text = (await readKeyFile(file)) ?? (await createKeyFile(file, algorithm))
  const jwk = JSON.parse(text) as JWK
  const kid = await calculateJwkThumbprint(jwk)
  const publicJwk = { ...publicHalf(jwk), use: 'sig', alg: algorithm, kid }
  const privateKey = await importJWK(jwk, algorithm)
  return { algorithm, kid, privateKey, publicKey: await importJWK(publicJwk, algorithm), publicJwk }
}

async function readKeyFile(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

async function createKeyFile(file: string, algorithm: SigningAlgorithm): Promise<string> {
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true })
  await createPrivateFile(file, JSON.stringify(await exportJWK(privateKey)))
  return readFile(file, 'utf8')
}

/** Only the members that are known to be public: a new private member could not slip through. */
function publicHalf(jwk: JWK): JWK {
  const members = ['kty', 'crv', 'x', 'y', 'n', 'e'] as const
  return Object.fromEntries(members.flatMap(name => (jwk[name] === undefined ? [] : [[name, jwk[name]]])))
}
