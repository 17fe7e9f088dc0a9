import { expect } from 'chai'
import { z } from 'zod'
import {
  adler32,
  bytes,
  did,
  id,
  idInPath,
  md5,
  pageQuery,
  publicKey,
  storagePath,
} from '../../shared/contract/fields.ts'
import type { Route } from '../../shared/contract/route.ts'
import { protocol } from '../../shared/contract/routes/storages.ts'
import { ROUTES } from '../../shared/contract/routes.ts'

const EC = { kty: 'EC', crv: 'P-256', x: 'x'.repeat(43), y: 'y'.repeat(43) }

/** What each shared field takes, and what it makes of it; and what it refuses. */
const FIELDS: Record<string, { schema: z.ZodType; takes: [unknown, unknown][]; refuses: unknown[] }> = {
  did: {
    schema: did,
    takes: [['exp:/store/a.b', 'exp:/store/a.b']],
    refuses: [
      'exp',
      ':a',
      'exp:',
      'exp:a/',
      'exp:a//b',
      'exp:a/../b',
      "exp:a'b",
      'exp:a b',
      'exp:é',
      'exp:a\u0000',
      'a:b:c',
      7,
    ],
  },
  id: { schema: id, takes: [[17, 17]], refuses: ['17', 0, -1, 1.5, 2 ** 53, true, null, [17]] },
  idInPath: { schema: idInPath, takes: [['17', 17]], refuses: ['', '0', '-1', '1.5', 'abc', '9007199254740993'] },
  bytes: { schema: bytes, takes: [[0, 0]], refuses: [-1, 1.5, '1', Number.POSITIVE_INFINITY, 2 ** 53] },
  adler32: {
    schema: adler32,
    takes: [
      ['03DA0195', '03da0195'],
      ['3da0195', '03da0195'],
    ],
    refuses: ['', 'xyz', '003da01950', 17],
  },
  md5: {
    schema: md5,
    takes: [['D41D8CD98F00B204E9800998ECF8427E', 'd41d8cd98f00b204e9800998ecf8427e']],
    refuses: ['d41d8cd9', 'x'.repeat(32)],
  },
  storagePath: {
    schema: storagePath,
    takes: [['/data/a.b_c~1', '/data/a.b_c~1']],
    refuses: ['/', '', 'data', '/data/', '/data//a', '/data/../a', '/./a', '/a b', '/a%2e', '/é', '/a\n'],
  },
  protocolUrl: {
    schema: protocol.shape.url,
    takes: [['https://a.example.org:1094/', 'https://a.example.org:1094']],
    refuses: [
      'http://a.example.org',
      'https://a.example.org/x',
      'https://u:p@a.example.org',
      'https://a.example.org?x',
      'davs://a',
      'a',
    ],
  },
  publicKey: {
    schema: publicKey,
    takes: [[EC, EC]],
    refuses: [
      { ...EC, d: 'private' },
      { ...EC, crv: 'P-384' },
      { ...EC, kty: 'RSA' },
      { ...EC, x: 'x' },
    ],
  },
  limit: {
    schema: pageQuery.limit,
    takes: [
      ['5', 5],
      [undefined, 100],
    ],
    refuses: ['0', '1001', '1.5', 'x'],
  },
}

describe('contract: fields', () => {
  for (const [name, { schema, takes, refuses }] of Object.entries(FIELDS)) {
    for (const [value, made] of takes) {
      it(`${name} takes ${JSON.stringify(value)}`, () => expect(schema.parse(value)).to.deep.equal(made))
    }
    for (const value of refuses) {
      it(`${name} refuses ${JSON.stringify(value)}`, () => expect(schema.safeParse(value).success).to.equal(false))
    }
  }
})

/** Every text within a schema, by its place. */
function textsOf(schema: unknown, where: string): [string, z.ZodType][] {
  if (schema instanceof z.ZodObject) {
    return Object.entries(schema.shape).flatMap(([key, field]) => textsOf(field, `${where}.${key}`))
  }
  if (schema instanceof z.ZodString || schema instanceof z.ZodURL) return [[where, schema]]
  if (schema instanceof z.ZodArray) return textsOf(schema.element, where)
  if (schema instanceof z.ZodUnion) return schema.options.flatMap(option => textsOf(option, where))
  if (schema instanceof z.ZodRecord) return [...textsOf(schema.keyType, where), ...textsOf(schema.valueType, where)]
  if (schema instanceof z.ZodPipe) return textsOf(schema.in, where)
  const wraps = schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault
  return wraps ? textsOf(schema.unwrap(), where) : []
}

describe('contract: rows', () => {
  const rows: [string, Route][] = Object.entries(ROUTES)

  it('have a method and path of their own', () => {
    const seen = rows.map(([, { method, path }]) => `${method} ${path.replace(/\{\w+\}/g, '{}')}`)
    expect(new Set(seen).size).to.equal(seen.length)
  })

  it('say what an account needs in the scopes that they change something in', () => {
    const silent = rows.filter(([, { method, role, permission }]) => {
      const changes = method !== 'GET' && (role === 'manager' || role === 'member')
      return changes !== (permission !== undefined)
    })
    // It has a body, and reads: all accounts of a VO may read its data.
    expect(silent.map(([name]) => name)).to.deep.equal(['planDownload'])
  })

  it('refuse unknown fields in bodies and queries', () => {
    for (const [name, { body, query }] of rows) {
      for (const schema of [body, query]) {
        const issues = schema?.safeParse({ 'no such field': 1 }).error?.issues ?? []
        if (schema !== undefined)
          expect(
            issues.map(({ code }) => code),
            name,
          ).to.include('unrecognized_keys')
      }
    }
  })

  it('take no text that PostgreSQL refuses', () => {
    const taken: string[] = []
    for (const [name, { params, body, query }] of rows) {
      for (const [where, schema] of [params, body, query].flatMap(part => textsOf(part, name))) {
        const bad = ['a\u0000b', 'a\ud83d', '\udcb0'].filter(text => schema.safeParse(text).success)
        if (bad.length > 0) taken.push(where)
      }
    }
    expect([...new Set(taken.map(where => where.replace(/^\w+\.cursor$/, 'cursor')))].sort()).to.deep.equal([
      'cursor', // read, and checked then
      'reportImport.files.path', // names that no DID can have are told, quoted
      'reportRenewal.result.accessToken', // sealed before it is stored
      'reportRenewal.result.refreshToken',
    ])
  })

  it('bound every text and list that a caller can send', () => {
    const unbounded: string[] = []
    const walk = (schema: Record<string, unknown>, where: string): void => {
      const text = schema.type === 'string' && schema.enum === undefined && schema.const === undefined
      if (text && schema.maxLength === undefined && schema.pattern === undefined) unbounded.push(where)
      if (schema.type === 'array' && schema.maxItems === undefined) unbounded.push(`${where}[]`)
      for (const [key, value] of Object.entries(schema)) {
        if (typeof value === 'object' && value !== null) walk(value as Record<string, unknown>, `${where}.${key}`)
      }
    }
    for (const [name, { body, query }] of rows) {
      for (const schema of [body, query]) {
        if (schema !== undefined) walk(schema.toJSONSchema({ io: 'input', unrepresentable: 'any' }), name)
      }
    }
    expect(unbounded).to.deep.equal([])
  })
})
