import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { z } from 'zod'
import { type ContractSnapshot, contractFaults } from '../../shared/contract/compatibility.ts'
import { type JsonSchema, jsonSchema } from '../../shared/contract/openapi.ts'
import { workerRoutes } from '../../shared/contract/routes/worker.ts'
import { contractRefusal, RELEASED_WORKER_CONTRACT, WORKER_CONTRACT } from '../../shared/contract/worker-contract.ts'
import { snapshotFaults, snapshotPath, workerSnapshot } from '../../shared/contract/worker-snapshot.ts'
import { PROJECT } from './layers.ts'

const schema = (type: z.ZodType, io: 'input' | 'output'): JsonSchema => jsonSchema(type, io)

/** One row; what is not given is alike in both versions. */
function contract(
  version: number,
  row: { body?: z.ZodType; answer?: z.ZodType; path?: string } | undefined,
): ContractSnapshot {
  if (row === undefined) return { version, rows: {} }
  const { body = z.strictObject({}), answer = z.object({}), path = '/v1/x' } = row
  return {
    version,
    rows: { x: { method: 'POST', path, status: 200, body: schema(body, 'input'), answer: schema(answer, 'output') } },
  }
}

const text = z.string().max(10)
const list = z.array(z.enum(['a', 'b'])).max(10)
const kinds = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('a'), n: z.number() }),
  z.object({ kind: z.enum(['b', 'c']) }),
])

describe('contract: what older workers send', () => {
  const cases: [string, older: z.ZodType, newer: z.ZodType, fault?: string][] = [
    ['the same', z.strictObject({ text }), z.strictObject({ text })],
    ['without a new field that is optional', z.strictObject({}), z.strictObject({ text: text.optional() })],
    ['without a new field that has a default', z.strictObject({}), z.strictObject({ text: text.default('') })],
    [
      'without a new field',
      z.strictObject({}),
      z.strictObject({ text }),
      'x.body: older workers may send that "text" is left out',
    ],
    [
      'without what became required',
      z.strictObject({ text: text.optional() }),
      z.strictObject({ text }),
      '"text" is left out',
    ],
    ['what became optional', z.strictObject({ text }), z.strictObject({ text: text.optional() })],
    [
      'a field that is gone',
      z.strictObject({ text }),
      z.strictObject({}),
      'x.body: older workers may send the field "text"',
    ],
    ['any field', z.object({}).loose(), z.strictObject({}), 'any field'],
    ['texts, where longer ones are taken', z.strictObject({ text }), z.strictObject({ text: z.string().max(11) })],
    [
      'texts, where shorter ones are',
      z.strictObject({ text }),
      z.strictObject({ text: z.string().max(9) }),
      'x.body.text: older workers may send values beyond maxLength 9',
    ],
    ['texts, where all are taken', z.strictObject({ text }), z.strictObject({ text: z.string() })],
    [
      'texts, where some pattern is',
      z.strictObject({ text }),
      z.strictObject({ text: text.regex(/^a/) }),
      'pattern ^a',
    ],
    ['numbers, where larger ones are taken', z.number().max(5), z.number().max(6)],
    [
      'numbers, where smaller ones are',
      z.number().max(5),
      z.number().max(4),
      'x.body: older workers may send values beyond maximum 4',
    ],
    ['numbers below 5, where 5 is taken', z.number().lt(5), z.number().max(5)],
    ['numbers to 5, where 5 is not', z.number().max(5), z.number().lt(5), 'exclusiveMaximum 5'],
    ['numbers from 0, where 0 is not', z.number().min(0), z.number().positive(), 'exclusiveMinimum 0'],
    ['numbers above 0, where 0 is taken', z.number().positive(), z.number().min(0)],
    ['numbers, where whole ones are', z.number().min(0).max(9), z.int().min(0).max(9), 'type number'],
    ['whole numbers, where any are', z.int().min(0).max(9), z.number().min(0).max(9)],
    ['texts, where numbers are', z.string(), z.number(), 'type string'],
    ['words of a list that grew', z.enum(['a', 'b']), z.enum(['a', 'b', 'c'])],
    ['words of a list that shrank', z.enum(['a', 'b']), z.enum(['a']), 'x.body: older workers may send "b"'],
    ['texts, where a list is', text, z.enum(['a', 'b']), 'values other than "a", "b"'],
    ['words of a list, where texts are', z.enum(['a', 'b']), text],
    ['words of a list, where shorter texts are', z.enum(['a', 'bbb']), z.string().max(2), 'maxLength 2'],
    ['words of a list, where texts of a pattern are', z.enum(['a', 'b']), z.string().regex(/^[ab]$/)],
    ['words of a list, where texts of another are', z.enum(['a', 'b']), z.string().regex(/^a$/), 'pattern ^a$'],
    ['lists, where longer ones are taken', list, z.array(z.enum(['a', 'b'])).max(11)],
    ['lists, where shorter ones are', list, z.array(z.enum(['a', 'b'])).max(9), 'maxItems 9'],
    ['lists of what is not taken', list, z.array(z.enum(['a'])).max(10), 'x.body[]: older workers may send "b"'],
    ['what became one of several', text, z.union([z.number(), text])],
    ['one of several that is gone', z.union([z.number(), text]), text, 'type number'],
    ['one of several, where there are more', kinds, z.union([kinds, z.object({ kind: z.literal('d') })])],
    [
      'one of several that asks for more',
      kinds,
      z.discriminatedUnion('kind', [
        z.object({ kind: z.literal('a'), n: z.number(), m: z.number() }),
        z.object({ kind: z.enum(['b', 'c']) }),
      ]),
      '"m" is left out',
    ],
    [
      'what is left out, which means something else now',
      z.strictObject({ text: text.default('a') }),
      z.strictObject({ text: text.default('b') }),
      'nothing, and mean "a"',
    ],
    [
      'what this check does not know',
      z.record(z.string().max(3), z.number()),
      z.record(z.string().max(2), z.number()),
      'cannot be compared',
    ],
  ]
  for (const [what, older, newer, fault] of cases) {
    it(`${fault === undefined ? 'may be' : 'may not be'} ${what}`, () => {
      const faults = contractFaults(contract(1, { body: older }), contract(2, { body: newer }))
      if (fault === undefined) expect(faults).to.deep.equal([])
      else expect(faults.join('\n')).to.contain(fault)
    })
  }
})

describe('contract: what older workers are answered', () => {
  const cases: [string, older: z.ZodType, newer: z.ZodType, fault?: string][] = [
    ['the same', z.object({ text }), z.object({ text })],
    ['more fields', z.object({ text }), z.object({ text, more: z.number() })],
    [
      'fewer fields',
      z.object({ text, more: z.number() }),
      z.object({ text }),
      'x.answer: older workers do not expect that "more" is left out',
    ],
    ['a field that may be missing', z.object({ text }), z.object({ text: text.optional() }), '"text" is left out'],
    ['a field that is always there', z.object({ text: text.optional() }), z.object({ text })],
    [
      'a new word',
      z.object({ list }),
      z.object({ list: z.array(z.enum(['a', 'b', 'c'])).max(10) }),
      'x.answer.list[]: older workers do not expect "c"',
    ],
    ['fewer words', z.object({ list }), z.object({ list: z.array(z.enum(['a'])).max(10) })],
    ['longer texts', z.object({ text }), z.object({ text: z.string().max(11) }), 'values beyond maxLength 10'],
    [
      'a new kind',
      kinds,
      z.discriminatedUnion('kind', [...kinds.options, z.object({ kind: z.literal('d') })]),
      'do not expect',
    ],
    ['fewer kinds', kinds, kinds.options[0]],
    ['something else in a field', z.object({ n: z.number() }), z.object({ n: z.string() }), 'type string'],
    [
      'deep below, something else',
      z.object({ a: z.object({ b: z.array(z.object({ n: z.int() })) }) }),
      z.object({ a: z.object({ b: z.array(z.object({ n: z.number() })) }) }),
      'x.answer.a.b[].n: older workers do not expect type number',
    ],
  ]
  for (const [what, older, newer, fault] of cases) {
    it(`${fault === undefined ? 'may be' : 'may not be'} ${what}`, () => {
      const faults = contractFaults(contract(1, { answer: older }), contract(2, { answer: newer }))
      if (fault === undefined) expect(faults).to.deep.equal([])
      else expect(faults.join('\n')).to.contain(fault)
    })
  }

  it('may be new words where they are known to be ignored', () => {
    const [older, newer] = [z.object({ word: z.enum(['a']) }), z.object({ word: z.enum(['a', 'b']) })]
    const [before, after] = [contract(1, { answer: older }), contract(2, { answer: newer })]
    expect(contractFaults(before, after)).to.deep.equal(['x.answer.word: older workers do not expect "b"'])
    expect(contractFaults(before, after, ['x.answer.word'])).to.deep.equal([])
  })

  it('may have fields that they do not know: they are left out, at every depth', () => {
    const storage = {
      rse: 'A',
      canPull: true,
      canPush: true,
      checksum: 'md5',
      checksumPolicy: 'both',
      watchdogs: {},
      freshConnections: false,
      macaroons: false,
      redirectHosts: [],
    }
    const directories = [{ directory: 1, path: '', doneUntil: 'a' }]
    const what = { dataset: 'd', checksum: 'none', summed: false, directories }
    const job = { import: 1, fence: 1, url: 'https://a', grant: 1, storage, ...what }
    const nothing = { transfers: [], more: false, tasks: [], drained: false }
    const answer = { ...nothing, storages: [storage], renewals: [1], imports: [job] }
    const more = { ...answer, new: 1, imports: [{ ...job, new: 1, storage: { ...storage, new: {} } }] }
    expect(workerRoutes.claim.answer.parse(more)).to.deep.equal(answer)
  })
})

describe('contract: rows', () => {
  it('stay where they are, and new ones do no harm', () => {
    const one = contract(1, {})
    expect(contractFaults(one, contract(2, undefined))).to.deep.equal(['x: the row is gone'])
    expect(contractFaults(one, contract(2, { path: '/v1/y' }))).to.deep.equal(['x: its path was /v1/x and is /v1/y'])
    expect(contractFaults(contract(1, undefined), one)).to.deep.equal([])
  })

  it('that say the version never change what is sent', () => {
    const as = (version: number, body: z.ZodType): ContractSnapshot => ({
      version,
      rows: Object.fromEntries(Object.values(contract(version, { body }).rows).map(row => ['openSession', row])),
    })
    const wider = z.strictObject({ text: text.optional() })
    expect(contractFaults(as(1, z.strictObject({})), as(2, wider)).join()).to.contain('must stay as it is')
  })
})

describe('contract: versions', () => {
  const stored = async (version: number): Promise<ContractSnapshot> =>
    JSON.parse(await readFile(join(PROJECT, snapshotPath(version)), 'utf8')) as ContractSnapshot

  it('all that there were can work with this server, or are too old', async () => {
    const current = workerSnapshot()
    expect(await stored(WORKER_CONTRACT)).to.deep.equal(current)
    for (let version = 1; version <= WORKER_CONTRACT; version++) {
      if (contractRefusal(version) !== undefined) continue
      expect(contractFaults(await stored(version), current)).to.deep.equal([])
    }
  })

  const refusals: [spoken: number, served: number, code: string | undefined][] = [
    [1, 1, undefined],
    [2, 1, 'CONTRACT_TOO_NEW'],
    [1, 2, undefined],
    [2, 2, undefined],
    [3, 2, 'CONTRACT_TOO_NEW'],
    [1, 3, 'CONTRACT_TOO_OLD'],
    [2, 3, undefined],
  ]
  for (const [spoken, served, code] of refusals) {
    it(`a server of ${served} ${code === undefined ? 'serves' : 'refuses'} workers of ${spoken}`, () => {
      expect(contractRefusal(spoken, served)?.code).to.equal(code)
    })
  }
  it('are named in the refusal, with what to do', () => {
    expect(contractRefusal(1, 3)?.message).to.equal(
      'the worker speaks version 1 of the contract and this server versions 2 and 3: update the worker',
    )
    expect(contractRefusal(2, 1)?.message).to.contain('this server version 1: update the server, and workers after it')
  })

  const one = contract(1, { body: z.strictObject({ text }) })
  const other = contract(1, { body: z.strictObject({}) })
  const two = contract(2, { body: z.strictObject({ text: text.optional() }) })
  const faults: [string, Parameters<typeof snapshotFaults>[0], string | undefined][] = [
    [
      'before its release, a version changes freely',
      { current: one, released: 0, stored: other, previous: undefined },
      undefined,
    ],
    ['a released one stays', { current: one, released: 1, stored: one, previous: undefined }, undefined],
    [
      'a released one does not change',
      { current: one, released: 1, stored: other, previous: undefined },
      'raise WORKER_CONTRACT in shared/contract/worker-contract.ts to 2, run npm run documents, and commit docs/contract/worker-v2.json',
    ],
    [
      'a released one is not lost',
      { current: one, released: 1, stored: undefined, previous: undefined },
      'raise WORKER_CONTRACT',
    ],
    ['the next one serves it', { current: two, released: 1, stored: undefined, previous: one }, undefined],
    [
      'the next one needs it',
      { current: two, released: 1, stored: two, previous: undefined },
      'docs/contract/worker-v1.json is missing',
    ],
    [
      'the next one must serve it',
      { current: { ...other, version: 2 }, released: 1, stored: two, previous: one },
      'workers of version 1 could not go on with this server: x.body: older workers may send the field "text"',
    ],
  ]
  for (const [what, facts, sentence] of faults) {
    it(what, () => {
      const found = snapshotFaults(facts)
      if (sentence === undefined) expect(found).to.deep.equal([])
      else expect(found.join('\n')).to.contain(sentence)
    })
  }

  it('are released with Waybill', async () => {
    const changelog = await readFile(join(PROJECT, 'CHANGELOG.md'), 'utf8')
    const [newest = ''] = /^## .+$/m.exec(changelog) ?? []
    expect(newest).to.match(/^## \d+\.\d+\.\d+/)
    // Who writes a release's date there raises RELEASED_WORKER_CONTRACT.
    if (!newest.includes('(unreleased)')) expect(RELEASED_WORKER_CONTRACT).to.equal(WORKER_CONTRACT)
    expect(RELEASED_WORKER_CONTRACT).to.be.at.most(WORKER_CONTRACT)
  })
})
