import { expect } from 'chai'
import { CompactEncrypt, importJWK } from 'jose'
import { Secret } from '../../shared/domain/secret.ts'
import { newRecipient, type Recipient, sealFor } from '../../shared/oidc/sealed-transport.ts'
import { rejection } from './oidc-local-issuer.ts'

const TOKEN = 'eyJhbGciOiJFUzI1NiJ9.e30.c2ln'
const CONTEXT = 'grant:17:3'

describe('sealed transport of tokens', () => {
  let session: Recipient
  before(async () => {
    session = await newRecipient()
  })

  it('opens for the session and the context it was sealed for', async () => {
    const jwe = await sealFor(JSON.parse(JSON.stringify(session.publicJwk)), new Secret(TOKEN), CONTEXT)
    expect(jwe.split('.')).to.have.length(5)
    expect(Buffer.from(jwe).toString('latin1')).not.to.include(TOKEN)
    expect((await session.open(jwe, CONTEXT)).reveal()).to.equal(TOKEN)
  })

  it('is another text each time', async () => {
    const seal = (): Promise<string> => sealFor(session.publicJwk, new Secret(TOKEN), CONTEXT)
    expect(await seal()).not.to.equal(await seal())
  })

  it('says nothing of the private key', () => {
    expect(Object.keys(session.publicJwk).sort()).to.deep.equal(['crv', 'kty', 'x', 'y'])
  })

  it('opens for no other session, and for no other context', async () => {
    const jwe = await sealFor(session.publicJwk, new Secret(TOKEN), CONTEXT)
    const other = await newRecipient()
    expect((await rejection(other.open(jwe, CONTEXT))).code).to.equal('SEALED_TOKEN_REFUSED')
    expect((await rejection(session.open(jwe, 'grant:17:4'))).code).to.equal('SEALED_TOKEN_REFUSED')
  })

  it('opens no more when any part was changed, the context in the header too', async () => {
    const jwe = await sealFor(session.publicJwk, new Secret(TOKEN), CONTEXT)
    const parts = jwe.split('.')
    for (const [index, part] of parts.entries()) {
      const bytes = Buffer.from(part, 'base64url')
      bytes[0] = (bytes[0] ?? 0) ^ 1
      const changed = parts.with(index, bytes.toString('base64url')).join('.')
      expect((await rejection(session.open(changed, CONTEXT))).code).to.equal('SEALED_TOKEN_REFUSED')
    }
    const header = JSON.parse(Buffer.from(parts[0] ?? '', 'base64url').toString())
    const moved = Buffer.from(JSON.stringify({ ...header, context: 'grant:18:1' })).toString('base64url')
    const error = await rejection(session.open(parts.with(0, moved).join('.'), 'grant:18:1'))
    expect(error.code).to.equal('SEALED_TOKEN_REFUSED')
  })

  it('opens nothing sealed in another way', async () => {
    const key = await importJWK({ ...session.publicJwk }, 'ECDH-ES')
    const jwe = await new CompactEncrypt(Buffer.from(TOKEN))
      .setProtectedHeader({ alg: 'ECDH-ES', enc: 'A128CBC-HS256', context: CONTEXT })
      .encrypt(key)
    expect((await rejection(session.open(jwe, CONTEXT))).code).to.equal('SEALED_TOKEN_REFUSED')
    for (const text of ['', TOKEN, 'a.b.c.d.e']) {
      expect((await rejection(session.open(text, CONTEXT))).code).to.equal('SEALED_TOKEN_REFUSED')
    }
  })

  const keys: [what: string, key: (good: object) => unknown][] = [
    ['nothing', () => undefined],
    ['a text', () => 'key'],
    ['a symmetric key', () => ({ kty: 'oct', k: 'AAAA' })],
    ['another curve', good => ({ ...good, crv: 'P-384' })],
    ['a private key', good => ({ ...good, d: 'A'.repeat(43) })],
    ['a point that is not on the curve', good => ({ ...good, y: 'A'.repeat(43) })],
    ['a short coordinate', good => ({ ...good, x: 'AA' })],
  ]
  for (const [what, key] of keys) {
    it(`does not seal for ${what}: RECIPIENT_KEY_INVALID`, async () => {
      const error = await rejection(sealFor(key(session.publicJwk), new Secret(TOKEN), CONTEXT))
      expect(error).to.include({ code: 'RECIPIENT_KEY_INVALID', status: 400 })
    })
  }
})
