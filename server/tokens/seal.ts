import { createCipheriv, createDecipheriv } from 'node:crypto'
import { link, open, readFile, rm, stat } from 'node:fs/promises'
import { z } from 'zod'
import { WaybillError } from '../../shared/domain/errors.ts'
import { Secret } from '../../shared/domain/secret.ts'
import type { Random } from '../../shared/runtime/random.ts'

/** Which secret of which grant it is: a sealed value moved to another row, generation or column opens nowhere. */
export interface SealContext {
  grantId: number
  generation: number
  kind: 'access' | 'refresh'
}

/**
 * Seals what must be recoverable and is at rest in the database: AES-256-GCM, a data key per value, wrapped by a versioned
 * key-encryption key that lives outside the database (facts/tokens.md section 4). A dump of the database opens nothing.
 */
export interface Vault {
  /** `w1.<key version>.<wrapped data key>.<sealed value>`, the last two in base64url. */
  seal(secret: Secret, context: SealContext): string
  /** Throws `VAULT_KEY_UNKNOWN` (a key version that the key file lacks) or `VAULT_TAMPERED`. */
  open(sealed: string, context: SealContext): Secret
}

const FORMAT = 'w1'
const KEY_BYTES = 32
const IV_BYTES = 12
const TAG_BYTES = 16

const version = z.string().regex(/^[A-Za-z0-9_-]{1,32}$/)
const keyFileSchema = z
  .strictObject({ current: version, keys: z.record(version, z.base64()) })
  .refine(({ keys }) => Object.values(keys).every(key => Buffer.from(key, 'base64').length === KEY_BYTES))
  .refine(({ current, keys }) => Object.hasOwn(keys, current))

type KeyFile = z.infer<typeof keyFileSchema>

/**
 * The vault whose key-encryption keys are in the file at `path`: `{"current": "1", "keys": {"1": "<base64 of 32 bytes>"}}`.
 * Made with mode 0600 when it is missing. To rotate, add a key and name it `current`; a key may go when nothing is sealed
 * with it any more. Throws `VAULT_KEY_FILE`.
 */
export async function loadVault(path: string, random: Random): Promise<Vault> {
  const { current, keys } = (await readKeyFile(path)) ?? (await createKeyFile(path, random))
  const keyOf = new Map(Object.entries(keys).map(([name, key]) => [name, Buffer.from(key, 'base64')]))

  function keyFor(name: string): Buffer {
    const key = keyOf.get(name)
    if (key) return key
    throw new WaybillError('VAULT_KEY_UNKNOWN', `a value is sealed with key ${name}, which ${path} lacks: put it back`)
  }

  return {
    seal(secret, context) {
      const dataKey = random.bytes(KEY_BYTES)
      const bound = boundTo(context)
      const wrapped = encrypt(keyFor(current), dataKey, bound, random)
      const sealed = encrypt(dataKey, Buffer.from(secret.reveal(), 'utf8'), bound, random)
      return [FORMAT, current, wrapped.toString('base64url'), sealed.toString('base64url')].join('.')
    },
    open(text, context) {
      const [format, name, wrapped, sealed, ...rest] = text.split('.')
      if (format !== FORMAT || !version.safeParse(name).success || !name || !wrapped || !sealed || rest.length > 0) {
        throw tampered(context)
      }
      const key = keyFor(name)
      const bound = boundTo(context)
      try {
        const dataKey = decrypt(key, Buffer.from(wrapped, 'base64url'), bound)
        return new Secret(decrypt(dataKey, Buffer.from(sealed, 'base64url'), bound).toString('utf8'))
      } catch {
        throw tampered(context)
      }
    },
  }
}

/** The additional data of both layers. */
function boundTo({ grantId, generation, kind }: SealContext): Buffer {
  return Buffer.from(JSON.stringify([FORMAT, grantId, generation, kind]), 'utf8')
}

/** Initialisation vector, ciphertext and tag in one. */
function encrypt(key: Buffer, plain: Buffer, bound: Buffer, random: Random): Buffer {
  const iv = random.bytes(IV_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES }).setAAD(bound)
  return Buffer.concat([iv, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
}

function decrypt(key: Buffer, sealed: Buffer, bound: Buffer): Buffer {
  const iv = sealed.subarray(0, IV_BYTES)
  const tag = sealed.subarray(-TAG_BYTES)
  const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES }).setAAD(bound).setAuthTag(tag)
  return Buffer.concat([decipher.update(sealed.subarray(IV_BYTES, -TAG_BYTES)), decipher.final()])
}

function tampered({ grantId, generation, kind }: SealContext): WaybillError {
  return new WaybillError(
    'VAULT_TAMPERED',
    `the sealed ${kind} token of grant ${grantId}, generation ${generation}, does not open: it was changed or moved, or sealed with another key`,
  )
}

async function readKeyFile(path: string): Promise<KeyFile | undefined> {
  const text = await readFile(path, 'utf8').catch(error => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw keyFileError(path, 'cannot be read')
  })
  if (text === undefined) return undefined
  if (((await stat(path)).mode & 0o007) !== 0) throw keyFileError(path, 'is open to everybody: chmod it to 600')
  try {
    return keyFileSchema.parse(JSON.parse(text))
  } catch {
    throw keyFileError(path, 'is not of the form {"current": "1", "keys": {"1": "<base64 of 32 bytes>"}}')
  }
}

/** Written aside and linked into place, so that of several servers starting at once all take the same, whole file. */
async function createKeyFile(path: string, random: Random): Promise<KeyFile> {
  const aside = `${path}.${random.uuid()}`
  const text = JSON.stringify({ current: '1', keys: { 1: random.bytes(KEY_BYTES).toString('base64') } })
  try {
    const file = await open(aside, 'wx', 0o600)
    try {
      await file.writeFile(`${text}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
    await link(aside, path).catch(error => {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    })
  } catch {
    throw keyFileError(path, 'is missing and cannot be made')
  } finally {
    await rm(aside, { force: true })
  }
  const made = await readKeyFile(path)
  if (!made) throw keyFileError(path, 'was made and is gone')
  return made
}

/** Without a cause: what a parser says may quote the file. */
function keyFileError(path: string, what: string): WaybillError {
  return new WaybillError('VAULT_KEY_FILE', `the vault's key file ${path} ${what}`)
}
