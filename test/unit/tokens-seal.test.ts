import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { loadVault, type SealContext, type Vault } from '../../server/tokens/seal.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { systemRandom } from '../../shared/runtime/random.ts'
import { refusal, rejection } from './oidc-local-issuer.ts'

const TOKEN = 'refresh-token-one'
const CONTEXT: SealContext = { grantId: 17, generation: 3, kind: 'refresh' }

describe('the vault`s sealing', () => {
  let directory: string
  let path: string
  let vault: Vault

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'waybill-vault-'))
    path = join(directory, 'vault.json')
    vault = await loadVault(path, systemRandom)
  })
  afterEach(() => rm(directory, { recursive: true }))

  /** Adds a key and makes it the current one. */
  async function rotate(version: string): Promise<void> {
    const { keys } = JSON.parse(await readFile(path, 'utf8'))
    const added = { ...keys, [version]: systemRandom.bytes(32).toString('base64') }
    await writeFile(path, JSON.stringify({ current: version, keys: added }))
  }

  it('opens what it sealed, and shows nothing of it', () => {
    const sealed = vault.seal(new Secret(TOKEN), CONTEXT)
    expect(sealed).to.match(/^w1\.1\.[\w-]+\.[\w-]+$/)
    expect(Buffer.from(sealed.split('.')[3] ?? '', 'base64url').toString('latin1')).not.to.include(TOKEN)
    expect(vault.open(sealed, CONTEXT).reveal()).to.equal(TOKEN)
    expect(vault.seal(new Secret(TOKEN), CONTEXT)).not.to.equal(sealed)
  })

  it('keeps any text', () => {
    for (const text of ['', 'é\u0000', 'x'.repeat(20_000)]) {
      expect(vault.open(vault.seal(new Secret(text), CONTEXT), CONTEXT).reveal()).to.equal(text)
    }
  })

  const moved: SealContext[] = [
    { ...CONTEXT, grantId: 18 },
    { ...CONTEXT, generation: 4 },
    { ...CONTEXT, kind: 'access' },
  ]
  for (const context of moved) {
    it(`does not open as ${Object.values(context).join(':')}: VAULT_TAMPERED`, () => {
      const sealed = vault.seal(new Secret(TOKEN), CONTEXT)
      expect(refusal(() => vault.open(sealed, context)).code).to.equal('VAULT_TAMPERED')
    })
  }

  it('does not open when any byte was changed: VAULT_TAMPERED', () => {
    const [format, version, ...parts] = vault.seal(new Secret(TOKEN), CONTEXT).split('.')
    for (const [index, part] of parts.entries()) {
      const bytes = Buffer.from(part, 'base64url')
      for (let i = 0; i < bytes.length; i++) {
        const changed = Buffer.from(bytes)
        changed[i] = (changed[i] ?? 0) ^ 0x80
        const text = [format, version, ...parts.with(index, changed.toString('base64url'))].join('.')
        expect(refusal(() => vault.open(text, CONTEXT)).code).to.equal('VAULT_TAMPERED')
      }
    }
  })

  for (const text of [
    '',
    'w1',
    'w1.1..',
    'w2.1.AAAA.AAAA',
    'w1.1.AAAA.AAAA',
    'w1.1.AAAA.AAAA.AAAA',
    'w1.no key.AAAA.AAAA',
  ]) {
    it(`"${text}" is VAULT_TAMPERED`, () =>
      expect(refusal(() => vault.open(text, CONTEXT)).code).to.equal('VAULT_TAMPERED'))
  }

  it('does not open with the data key of another value', () => {
    const one = vault.seal(new Secret('one'), CONTEXT).split('.')
    const two = vault.seal(new Secret('two'), CONTEXT).split('.')
    const mixed = [...one.slice(0, 3), two[3]].join('.')
    expect(refusal(() => vault.open(mixed, CONTEXT)).code).to.equal('VAULT_TAMPERED')
  })

  it('after a rotation seals with the new key and opens what the old one sealed', async () => {
    const old = vault.seal(new Secret(TOKEN), CONTEXT)
    await rotate('2026-12')
    const rotated = await loadVault(path, systemRandom)
    expect(rotated.open(old, CONTEXT).reveal()).to.equal(TOKEN)
    const sealed = rotated.seal(new Secret(TOKEN), CONTEXT)
    expect(sealed).to.match(/^w1\.2026-12\./)
    expect(refusal(() => vault.open(sealed, CONTEXT)).code).to.equal('VAULT_KEY_UNKNOWN')
    const relabelled = old.replace('w1.1.', 'w1.2026-12.')
    expect(refusal(() => rotated.open(relabelled, CONTEXT)).code).to.equal('VAULT_TAMPERED')
  })

  describe('the key file', () => {
    it('is made once, readable by its owner only, with nothing left beside it', async () => {
      expect((await stat(path)).mode & 0o777).to.equal(0o600)
      expect(await readdir(directory)).to.deep.equal(['vault.json'])
      const again = await loadVault(path, systemRandom)
      expect(again.open(vault.seal(new Secret(TOKEN), CONTEXT), CONTEXT).reveal()).to.equal(TOKEN)
    })

    it('is the same for all when several servers start at once', async () => {
      const shared = join(directory, 'shared.json')
      const vaults = await Promise.all(Array.from({ length: 8 }, () => loadVault(shared, systemRandom)))
      for (const one of vaults) {
        const sealed = one.seal(new Secret(TOKEN), CONTEXT)
        for (const other of vaults) expect(other.open(sealed, CONTEXT).reveal()).to.equal(TOKEN)
      }
    })

    const key = Buffer.alloc(32, 7).toString('base64')
    const bad: [what: string, text: string][] = [
      ['empty', ''],
      ['no JSON', '{"current": "1", "keys": {"1": "c2VjcmV0"'],
      ['a key too short', JSON.stringify({ current: '1', keys: { 1: 'c2VjcmV0' } })],
      ['a key that is no base64', JSON.stringify({ current: '1', keys: { 1: `${key.slice(0, -2)}*=` } })],
      ['no current key', JSON.stringify({ current: '2', keys: { 1: key } })],
      ['a version with a dot', JSON.stringify({ current: '1.0', keys: { '1.0': key } })],
      ['something more', JSON.stringify({ current: '1', keys: { 1: key }, old: key })],
    ]
    for (const [what, text] of bad) {
      it(`that is bad (${what}) is refused, left as it is, and not quoted`, async () => {
        await writeFile(path, text)
        const error = await rejection(loadVault(path, systemRandom))
        expect(error.code).to.equal('VAULT_KEY_FILE')
        expect(error.message).not.to.include('c2VjcmV0')
        expect(await readFile(path, 'utf8')).to.equal(text)
      })
    }

    it('that everybody may read is refused', async () => {
      await chmod(path, 0o644)
      expect((await rejection(loadVault(path, systemRandom))).code).to.equal('VAULT_KEY_FILE')
    })

    it('that cannot be made is refused', async () => {
      const error = await rejection(loadVault(join(directory, 'missing', 'vault.json'), systemRandom))
      expect(error.code).to.equal('VAULT_KEY_FILE')
    })
  })
})
