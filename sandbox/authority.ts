import 'reflect-metadata' // @peculiar/x509 finds its parsers through it
import { createPrivateKey, webcrypto } from 'node:crypto'
import { mkdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import * as x509 from '@peculiar/x509'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Random } from '../shared/runtime/random.ts'
import { hasCode, isMissing, writePrivateFile } from './private-file.ts'

/**
 * A certificate authority for loopback: one CA and one host certificate for every name of this machine's loopback.
 * Keys are EC P-256, which XRootD's, davix's and gfal2's OpenSSL take, and whose handshakes are the cheapest.
 */
export interface Authority {
  /** The CA's certificate (PEM): all that a client needs in order to trust the sandbox. */
  readonly caFile: string
  readonly certificateFile: string
  /** The host's private key (PKCS #8 PEM, mode 0600). */
  readonly keyFile: string
}

const DAY_MS = 24 * 60 * 60 * 1000
const CA_DAYS = 365
const HOST_DAYS = 30
/** What ends sooner than this is made anew at the next start. */
const RENEW_BEFORE_DAYS = 7
/** Certificates begin a little in the past, for clients whose clock is behind. */
const BACKDATED_MS = 60 * 60 * 1000

const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const LOOPBACK: x509.JsonGeneralNames = [
  { type: 'dns', value: 'localhost' },
  { type: 'ip', value: '127.0.0.1' },
  { type: 'ip', value: '::1' },
]

interface Tools {
  readonly clock: Clock
  readonly random: Random
}

/**
 * Makes the authority in `directory`, or takes the one that is there. Several processes may do so at once: the
 * directory appears whole, by one rename, and who comes second takes the first one's.
 */
export async function ensureAuthority(directory: string, tools: Tools): Promise<Authority> {
  const authority: Authority = {
    caFile: join(directory, 'ca.pem'),
    certificateFile: join(directory, 'host.pem'),
    keyFile: join(directory, 'host.key'),
  }
  const ca = await lookAt(authority.caFile, tools.clock)
  if (ca === 'good') {
    if ((await lookAt(authority.certificateFile, tools.clock)) !== 'good') await renewHost(directory, tools)
    return authority
  }
  const draft = `${directory}.${tools.random.uuid()}`
  if (ca === 'ending') await rename(directory, `${draft}.ended`)
  await mkdir(draft, { recursive: true })
  await createCa(draft, tools)
  await renewHost(draft, tools)
  await publish(draft, directory)
  return authority
}

async function lookAt(file: string, clock: Clock): Promise<'good' | 'ending' | 'missing'> {
  try {
    const certificate = new x509.X509Certificate(await readFile(file, 'utf8'))
    const left = certificate.notAfter.getTime() - clock.now()
    return left > RENEW_BEFORE_DAYS * DAY_MS ? 'good' : 'ending'
  } catch (error) {
    if (isMissing(error)) return 'missing'
    throw error
  }
}

async function publish(draft: string, directory: string): Promise<void> {
  try {
    await rename(draft, directory)
  } catch (error) {
    await rm(draft, { recursive: true })
    // Somebody else's authority came first: theirs is as good.
    if (!hasCode(error, 'ENOTEMPTY', 'EEXIST')) throw error
  }
}

async function createCa(directory: string, { clock, random }: Tools): Promise<void> {
  const keys = await webcrypto.subtle.generateKey(KEY_ALGORITHM, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(random),
    name: `CN=Waybill sandbox CA ${random.bytes(4).toString('hex')}`,
    ...validity(clock, CA_DAYS),
    signingAlgorithm: KEY_ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  await writePrivateFile(join(directory, 'ca.key'), await pemOfKey(keys.privateKey))
  await writePrivateFile(join(directory, 'ca.pem'), certificate.toString('pem'), 0o644)
}

async function renewHost(directory: string, { clock, random }: Tools): Promise<void> {
  const ca = new x509.X509Certificate(await readFile(join(directory, 'ca.pem'), 'utf8'))
  const keys = await webcrypto.subtle.generateKey(KEY_ALGORITHM, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(random),
    subject: 'CN=localhost',
    issuer: ca.subject,
    ...validity(clock, HOST_DAYS),
    signingAlgorithm: KEY_ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: await readKey(join(directory, 'ca.key')),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      new x509.SubjectAlternativeNameExtension(LOOPBACK),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(ca.publicKey),
    ],
  })
  await writePrivateFile(join(directory, 'host.key'), await pemOfKey(keys.privateKey))
  await writePrivateFile(join(directory, 'host.pem'), certificate.toString('pem'), 0o644)
}

function validity(clock: Clock, days: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(clock.now() - BACKDATED_MS), notAfter: new Date(clock.now() + days * DAY_MS) }
}

/** Positive and at most 20 octets: RFC 5280 section 4.1.2.2. */
function serialNumber(random: Random): string {
  return `01${random.bytes(15).toString('hex')}`
}

async function pemOfKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key)
  return x509.PemConverter.encode(der, 'PRIVATE KEY')
}

async function readKey(file: string): Promise<webcrypto.CryptoKey> {
  const der = createPrivateKey(await readFile(file, 'utf8')).export({ type: 'pkcs8', format: 'der' })
  return webcrypto.subtle.importKey('pkcs8', der, KEY_ALGORITHM, false, ['sign'])
}
