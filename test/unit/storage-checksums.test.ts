import { createHash } from 'node:crypto'
import { deflateSync } from 'node:zlib'
import { expect } from 'chai'
import fc from 'fast-check'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { digestTimeout, normaliseChecksum, parseDigests, sameChecksum } from '../../shared/storage/digest.ts'

/** zlib ends its streams with the adler32 of what went in (RFC 1950). */
const oracle = (bytes: Uint8Array) => deflateSync(bytes).subarray(-4).toString('hex')

describe('adler32', () => {
  it('is that of zlib, in one piece or several', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20_000 }), fc.nat(20_000), (bytes, cut) => {
        const sum = adler32(bytes.subarray(cut), adler32(bytes.subarray(0, cut)))
        expect(adler32Hex(sum)).to.equal(oracle(bytes))
      }),
    )
  })

  it('does not overflow on the largest bytes', () => {
    const bytes = new Uint8Array(3_000_000).fill(255)
    expect(adler32Hex(adler32(bytes))).to.equal(oracle(bytes))
  })

  it('has 8 digits, of nothing too', () => expect(adler32Hex(adler32(new Uint8Array()))).to.equal('00000001'))
})

describe('digests of an answer', () => {
  const MD5 = createHash('md5').update('hello\n').digest()
  const hex = MD5.toString('hex')
  const cases: [string, Record<string, string>, object][] = [
    ['XRootD adler32 [seen]', { digest: 'adler32=084b021f' }, { adler32: '084b021f' }],
    ['XRootD md5 [seen]', { digest: 'md5=sZRqySSS0jR8YjW00mERhA==' }, { md5: hex }],
    ['md5 in hex', { digest: `MD5=${hex.toUpperCase()}` }, { md5: hex }],
    ['several', { digest: `adler32=84B021F, md5=${MD5.toString('base64')}` }, { adler32: '084b021f', md5: hex }],
    ['another than asked for', { digest: 'sha-256=abcd' }, {}],
    [
      'RFC 9530',
      { 'repr-digest': `md5=:${MD5.toString('base64')}:, adler=:CEsCHw==:` },
      { adler32: '084b021f', md5: hex },
    ],
    ['too long', { digest: 'adler32=084b021f00' }, {}],
    ['not hex', { digest: 'adler32=xyz' }, {}],
    ['no value', { digest: 'adler32' }, {}],
    ['none', {}, {}],
  ]
  for (const [name, headers, found] of cases) it(name, () => expect(parseDigests(headers)).to.deep.equal(found))
})

describe('checksums', () => {
  it('compare without regard to case and leading zeros', () => {
    expect(sameChecksum('adler32', '84B021F', '084b021f')).to.equal(true)
    expect(sameChecksum('adler32', '84b021e', '084b021f')).to.equal(false)
    expect(sameChecksum('md5', 'ab', 'ab')).to.equal(false)
    expect(sameChecksum('adler32', '', '')).to.equal(false)
  })

  it('read md5 that is short as no md5', () => expect(normaliseChecksum('md5', '1234')).to.equal(undefined))

  it('have time by the size of the file, within bounds', () => {
    expect(digestTimeout(undefined)).to.equal(15_000)
    expect(digestTimeout(20 * 1024 ** 2)).to.equal(16_000)
    expect(digestTimeout(100 * 1024 ** 3)).to.equal(15_000 + 5_120_000)
    expect(digestTimeout(1e15)).to.equal(7_200_000)
  })
})
