import { Readable } from 'node:stream'
import { expect } from 'chai'
import { ROUTES } from '../../shared/contract/routes.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { AUDIENCE, type House, startHouse } from '../house/house.ts'
import { problemOf, RawCalls } from '../house/raw.ts'

const file = (did: string, more: object = {}) => ({ did, bytes: 1, adler32: '00620062', ...more })

describe('bad input', () => {
  let house: House
  let raw: RawCalls

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    raw = await RawCalls.create(house)
    const { client } = house
    await client.addDids({ body: { dids: [{ did: 'exp:inner', type: 'CONTAINER' }] } })
    const files = ['f1', 'f2', 'f3', 'f4'].map(name => file(`exp:${name}`))
    await client.registerReplicas({ body: { rse: 'SITE-A', dataset: 'exp:run1', files } })
  })
  after(() => house.stop())

  const rule = (more: object) => ({ body: { dids: ['exp:run1'], copies: 1, expression: 'SITE-C', ...more } })

  describe('names', () => {
    const names: [string, string, RegExp][] = [
      ['a dot segment', 'a/../b', /segment "\." or "\.\."/],
      ['another dot segment', 'a/./b', /segment "\." or "\.\."/],
      ['an empty segment', 'a//b', /empty segment/],
      ['white space', 'a b', /white space \(U\+0020\) at position 2/],
      ['a quote', 'a"b', /the character "\\"" at position 2/],
      ['a control character', 'a\u0000b', /control character \(U\+0000\) at position 2/],
      ['a character that is not ASCII', 'aé', /not ASCII \(U\+00E9\) at position 2/],
      ['a slash at the end', 'a/', /must not end with a slash/],
    ]
    for (const [what, name, said] of names) {
      it(`a DID name with ${what} is refused everywhere, with the field`, async () => {
        const did = `exp:${name}`
        const requests: [string, string, object][] = [
          ['dids.0.did', '/v1/dids', { dids: [{ did, type: 'DATASET' }] }],
          ['files.0.did', '/v1/replicas', { rse: 'SITE-A', files: [file(did)] }],
          ['dataset', '/v1/replicas', { rse: 'SITE-A', dataset: did, files: [file('exp:x')] }],
          ['dids.0', '/v1/rules', { dids: [did], copies: 1, expression: 'SITE-B' }],
          ['dids.0', '/v1/dids/exp/run1/contents', { dids: [did] }],
          ['dataset', '/v1/imports', { rse: 'SITE-A', path: '/data/exp/x', dataset: did }],
        ]
        for (const [field, path, body] of requests) {
          const { detail } = await raw.refusal([400, 'INVALID', field], 'POST', path, { body })
          expect(detail).to.match(said)
        }
        const address = `/v1/dids/exp/${encodeURIComponent(name)}`
        expect((await raw.refusal([400, 'INVALID', 'name'], 'GET', address)).detail).to.match(said)
      })
    }
  })

  describe('rules', () => {
    const expressions: [string, number][] = [
      ['a=', 3],
      ['SITE-A&', 8],
      ['(SITE-A', 8],
      ['SITE-A)', 7],
      ['|', 1],
      ['SITE-A SITE-B', 7],
      ['tier<x', 6],
      ["SITE-A'; DROP TABLE rules", 7],
    ]
    for (const [expression, position] of expressions) {
      it(`the expression ${expression} is refused with the position`, async () => {
        const refused = [400, 'RSE_EXPRESSION_SYNTAX', 'expression'] as const
        expect((await raw.refusal(refused, 'POST', '/v1/rules', rule({ expression }))).detail).to.match(
          new RegExp(`position ${position}\\b`),
        )
        await raw.refusal(refused, 'GET', `/v1/rses?expression=${encodeURIComponent(expression)}`)
      })
    }

    it('an expression without a match is refused', async () => {
      for (const expression of ['SITE-A=false', '*\\*', 'SITE-A&SITE-B']) {
        await raw.refusal([400, 'RSE_EXPRESSION_EMPTY', 'expression'], 'POST', '/v1/rules', rule({ expression }))
      }
    })

    it('an expression with a word that names nothing is refused with the position, whatever else matches', async () => {
      for (const [expression, position] of [
        ['SITE-Z', 1],
        ['SITE-A|SITEB', 8],
        ['SITE-A|country=de', 8],
      ] as const) {
        const refused = [400, 'RSE_EXPRESSION_UNKNOWN', 'expression'] as const
        const { detail } = await raw.refusal(refused, 'POST', '/v1/rules', rule({ expression }))
        expect(detail).to.contain(`at position ${position}`)
        await raw.refusal(refused, 'GET', `/v1/rses?expression=${encodeURIComponent(expression)}`)
      }
    })

    it('copies are a whole number of at least one', async () => {
      for (const copies of [0, -1, 1.5, '2', null, 1e9]) {
        await raw.refusal([400, 'INVALID', 'copies'], 'POST', '/v1/rules', rule({ copies }))
      }
    })

    it('no more copies than the expression names storages that can be written to', async () => {
      const impossible = [409, 'COPIES_IMPOSSIBLE', 'copies'] as const
      const { detail } = await raw.refusal(impossible, 'POST', '/v1/rules', rule({ copies: 4, expression: '*' }))
      expect(detail).to.contain(
        'copies=4, but of the storages that the expression names only SITE-A, SITE-B, SITE-C can take ',
      )
      await house.client.updateRse({ params: { rse: 'SITE-C' }, body: { availabilityWrite: false } })
      const closed = await raw.refusal(impossible, 'POST', '/v1/rules', rule({ copies: 3, expression: '*' }))
      expect(closed.detail).to.contain('SITE-C: not writable now')
      const none = await raw.refusal(impossible, 'POST', '/v1/rules', rule({ copies: 1, expression: 'SITE-C' }))
      expect(none.detail).to.equal(
        'copies=1, but of the storages that the expression names none can take exp:run1; SITE-C: not writable now',
      )
      const two = await raw.refusal(impossible, 'POST', '/v1/rules', rule({ copies: 2, expression: 'SITE-A' }))
      expect(two.detail).to.contain('only SITE-A can take')
      await house.client.updateRse({ params: { rse: 'SITE-C' }, body: { availabilityWrite: true } })
    })
  })

  it('space is kept free only where the capacity is known, and no more than that', async () => {
    const refused = [400, 'MIN_FREE_IMPOSSIBLE', 'minFreeBytes'] as const
    const set = (body: object) => ({ body })
    await raw.refusal(refused, 'PATCH', '/v1/rses/SITE-A', set({ minFreeBytes: 5 }))
    await raw.refusal(refused, 'PATCH', '/v1/rses/SITE-A', set({ minFreeBytes: 5, capacityBytes: 4 }))
    await house.client.updateRse({ params: { rse: 'SITE-A' }, body: { minFreeBytes: 4, capacityBytes: 5 } })
    await raw.refusal(refused, 'PATCH', '/v1/rses/SITE-A', set({ capacityBytes: null }))
    const rse = await house.client.getRse({ params: { rse: 'SITE-A' } })
    expect([rse.capacityBytes, rse.minFreeBytes], 'nothing of it was stored').to.deep.equal([5, 4])
    const { name: _name, ...like } = { ...rse, name: '' }
    const other = { ...like, name: 'SITE-D', capacityBytes: null }
    const body = Object.fromEntries(Object.entries(other).filter(([key]) => !key.startsWith('availability')))
    await raw.refusal(refused, 'POST', '/v1/rses', { body })
    await house.client.updateRse({ params: { rse: 'SITE-A' }, body: { minFreeBytes: null, capacityBytes: null } })
  })

  it('words hold no control characters', async () => {
    await raw.refusal([400, 'INVALID', 'comment'], 'POST', '/v1/rules', rule({ comment: 'a\u0000b' }))
    const attribute = { body: { value: 'a\u0007b' } }
    await raw.refusal([400, 'INVALID', 'value'], 'PUT', '/v1/rses/SITE-A/attributes/tier', attribute)
  })

  it('a key that tokens cannot be sealed to is refused before anything is done', async () => {
    // Well-formed, but no point of the curve.
    const key = { kty: 'EC', crv: 'P-256', x: 'A'.repeat(43), y: 'A'.repeat(43) }
    const upload = { rse: 'SITE-A', dataset: 'exp:new', files: [file('exp:new1')], key }
    await raw.refusal([400, 'RECIPIENT_KEY_INVALID', 'key'], 'POST', '/v1/uploads', { body: upload })
    const token = await house.token('worker', AUDIENCE, ['wlcg'])
    const session = { token, body: { worker: 'w', key } }
    await raw.refusal([400, 'RECIPIENT_KEY_INVALID', 'key'], 'POST', '/v1/worker/sessions', session)
    await raw.refusal([404, 'DID_UNKNOWN', 'did'], 'GET', '/v1/dids/exp/new')
  })

  it('unknown fields are named, wherever they stand', async () => {
    const requests: [string, string, object][] = [
      ['urgent', '/v1/rules', { ...rule({}).body, urgent: true }],
      ['files.0.owner', '/v1/replicas', { rse: 'SITE-A', files: [file('exp:x', { owner: 'me' })] }],
      ['dids.0.size', '/v1/dids', { dids: [{ did: 'exp:x', type: 'DATASET', size: 1 }] }],
    ]
    for (const [field, path, body] of requests) {
      const { detail } = await raw.refusal([400, 'INVALID', field], 'POST', path, { body })
      expect(detail).to.contain('unknown field')
    }
    await raw.refusal([400, 'INVALID', 'colour'], 'GET', '/v1/rules?colour=red')
    expect((await house.client.getDid({ params: { scope: 'exp', name: 'run1' } })).files).to.equal(4)
  })

  for (const declared of [true, false]) {
    it(`a body of 100 MB is refused at once, ${declared ? 'with' : 'without'} Content-Length`, async () => {
      const megabyte = Buffer.alloc(1024 * 1024, 0x20)
      let sent = 0
      async function* spaces(): AsyncGenerator<Buffer> {
        for (sent = 0; sent < 100; sent++) yield megabyte
      }
      const began = systemClock.monotonic()
      const response = await house.http.request({
        method: 'POST',
        url: `${house.baseUrl}/v1/dids`,
        headers: {
          Authorization: `Bearer ${(await house.token('manager', AUDIENCE, ['wlcg'])).reveal()}`,
          'Content-Type': 'application/json',
          ...(declared ? { 'Content-Length': String(100 * megabyte.length) } : {}),
        },
        body: Readable.from(spaces()),
      })
      const { status, headers } = response
      expect(problemOf({ status, headers, text: await response.text(10_000) }).code).to.equal('BODY_TOO_LARGE')
      expect(status).to.equal(413)
      expect(systemClock.monotonic() - began).to.be.below(5_000)
      expect(sent).to.be.below(60)
    })
  }

  describe('Idempotency-Key', () => {
    it('the same request again gets the same answer, and is done once (rucio #1411)', async () => {
      const request = { ...rule({ expression: 'SITE-A' }), headers: { 'Idempotency-Key': 'once' } }
      const first = await raw.call('POST', '/v1/rules', request)
      const second = await raw.call('POST', '/v1/rules', request)
      expect([first.status, second.status]).to.deep.equal([201, 201])
      expect(second.text).to.equal(first.text)
      expect((await house.client.listRules()).items).to.have.length(1)
    })

    it('another request under the key is refused', async () => {
      const headers = { 'Idempotency-Key': 'once' }
      const reused = [422, 'IDEMPOTENCY_KEY_REUSED', 'Idempotency-Key'] as const
      await raw.refusal(reused, 'POST', '/v1/rules', { ...rule({ copies: 2, expression: '*' }), headers })
      await raw.refusal(reused, 'POST', '/v1/dids', { body: { dids: [{ did: 'exp:z', type: 'DATASET' }] }, headers })
    })

    it('a refused request leaves its key free', async () => {
      const headers = { 'Idempotency-Key': 'second-try' }
      const body = { dids: [{ did: 'exp:inner', type: 'DATASET' }] }
      await raw.refusal([409, 'DID_TYPE', 'dids.0.did'], 'POST', '/v1/dids', { body, headers })
      const better = { dids: [{ did: 'exp:inner', type: 'CONTAINER' }] }
      expect((await raw.call('POST', '/v1/dids', { body: better, headers })).status).to.equal(201)
    })
  })

  describe('pages', () => {
    it('give everything once', async () => {
      const seen: string[] = []
      let cursor: string | undefined
      do {
        const page = await house.client.listDids({
          query: { scope: 'exp', limit: 2, ...(cursor === undefined ? {} : { cursor }) },
        })
        expect(page.items.length).to.be.at.most(2)
        seen.push(...page.items.map(({ did }) => did))
        cursor = page.next
      } while (cursor !== undefined)
      expect(seen).to.deep.equal([...new Set(seen)].sort())
      expect(seen).to.have.length(6)
    })

    it('of a cursor that no list gave out are refused', async () => {
      const wrap = (key: unknown): string => Buffer.from(JSON.stringify(key)).toString('base64url')
      const cursors = ['x', '%00', wrap({}), wrap(null), wrap([1]), wrap(1.5), wrap(1e300)]
      for (const cursor of [...cursors, wrap('text')]) {
        await raw.refusal([400, 'CURSOR_INVALID', 'cursor'], 'GET', `/v1/rules?cursor=${cursor}`)
      }
      for (const cursor of [...cursors, wrap(1), wrap('a\u0000b'), wrap('\ud83d')]) {
        await raw.refusal([400, 'CURSOR_INVALID', 'cursor'], 'GET', `/v1/dids?scope=exp&cursor=${cursor}`)
      }
      for (const limit of ['0', '1001', '1.5', 'x', '']) {
        await raw.refusal([400, 'INVALID', 'limit'], 'GET', `/v1/rules?limit=${limit}`)
      }
    })
  })
})

describe('whatever is sent', () => {
  let house: House

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    const files = [file('exp:f1'), file('exp:f2')]
    await house.client.registerReplicas({ body: { rse: 'SITE-A', dataset: 'exp:run1', files } })
  })
  after(() => house.stop())

  it('to any row, no answer is a 5xx, and every refusal is a problem document (facts/rules.md: bad copies, quota, blocked RSEs)', async () => {
    const raw = await RawCalls.create(house)
    const bodies: unknown[] = [
      'null',
      '[]',
      '{}',
      '"x"',
      '0',
      '{"__proto__":{"x":1}}',
      `${'['.repeat(100_000)}`,
      '\uFFFE',
      '',
      {
        dids: [null],
        files: [null],
        rse: 'SITE-A',
        copies: 1,
        expression: '*',
        key: { kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA' },
      },
      {
        rse: 'SITE-A',
        dataset: 'exp:run1',
        did: 'exp:run1',
        files: [file('exp:f2')],
        key: { kty: 'EC', crv: 'P-256', x: 'A'.repeat(43), y: 'A'.repeat(43) },
      },
      {
        session: 1,
        limit: 1,
        transfer: 1,
        fence: 1,
        outcomes: [{ transfer: 1, fence: 1, result: 'done', durationMs: 1, endedMsAgo: 1, bytes: 1 }],
      },
      { worker: 'w', key: { kty: 'EC', crv: 'P-256', x: 'A'.repeat(43), y: 'A'.repeat(43) } },
    ]
    const names = ['1', '0', '-1', 'exp', 'SITE-A', '%00', '%ff', '..%2f..', "'", 'a'.repeat(5_000)]
    const tokens = [await house.token('manager', AUDIENCE, ['wlcg']), await house.token('worker', AUDIENCE, ['wlcg'])]
    for (const { method, path } of Object.values(ROUTES)) {
      const targets = path.includes('{') ? names.map(name => path.replace(/\{\w+\}/g, name)) : [path]
      const [first] = targets
      const requests = [
        ...targets.map(target => ({ target, body: method === 'GET' ? undefined : '{}' })),
        ...(method === 'GET' ? [] : bodies.map(body => ({ target: first ?? path, body }))),
      ]
      for (const { target, body } of requests) {
        for (const token of tokens) {
          const answered = await raw.call(method, target, { token, body })
          expect(answered.status, `${method} ${target} ${JSON.stringify(body)}: ${answered.text}`).to.be.below(500)
          if (answered.status >= 400) problemOf(answered)
        }
      }
    }
  })
})
