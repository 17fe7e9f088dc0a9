import { expect } from 'chai'
import { z } from 'zod'
import { id, idInPath, pageQuery } from '../../shared/contract/fields.ts'
import { InvalidRequest, parsePart } from '../../shared/contract/invalid-request.ts'
import type { Route } from '../../shared/contract/route.ts'
import { ROUTES } from '../../shared/contract/routes.ts'

/** What is said of `value`, all of it. */
function saidOf(schema: z.ZodType, value: unknown): string[] {
  try {
    parsePart(schema, value)
  } catch (error) {
    if (error instanceof InvalidRequest)
      return error.errors.map(({ field, message }) => (field === '' ? message : `${field}: ${message}`))
    throw error
  }
  return []
}

describe('contract: what is said of a request that does not fit', () => {
  const many = z.array(z.number()).min(1).max(2)
  const cases: [string, z.ZodType, unknown, string[]][] = [
    ['a field that is missing', z.object({ a: z.number() }), {}, ['a: it is missing']],
    ['a text for a number', z.object({ a: z.number() }), { a: '1' }, ['a: a number is wanted']],
    [
      'a text that is no number in a query',
      z.object({ limit: pageQuery.limit }),
      { limit: 'x' },
      ['limit: a number is wanted'],
    ],
    ['a fraction', z.number().int(), 1.5, ['a whole number is wanted']],
    ['a number for a text', z.string(), 1, ['a text is wanted']],
    ['a text for a flag', z.boolean(), 'yes', ['true or false is wanted']],
    ['an object for a list', many, {}, ['a list is wanted']],
    ['a list for an object', z.object({}), [], ['an object is wanted']],
    ['too small a number', z.number().min(2), 1, ['it must be at least 2']],
    ['zero for what is positive', z.number().positive(), 0, ['it must be more than 0']],
    ['too large a number', z.number().max(2), 3, ['it must be at most 2']],
    ['too short a text', z.string().min(1), '', ['it must have at least 1 character']],
    ['too long a text', z.string().max(2), 'abc', ['it must have at most 2 characters']],
    ['too short a list', many, [], ['it must have at least 1 item']],
    ['too long a list', many, [1, 2, 3], ['it must have at most 2 items']],
    ['another word', z.enum(['a', 'b']), 'c', ['one of a, b is wanted']],
    ['another value', z.literal('a'), 'c', ['only a fits']],
    ['a text of another form', z.string().regex(/^a$/), 'b', ['it is not written as it must be']],
    ['a number over two limits', id, 1e30, [`it must be at most ${2 ** 53 - 1}`]],
    ['a field with words of its own', idInPath, 'abc', ['an id is a whole number, e.g. 17']],
    ['the same, over two limits', idInPath, '9999999999999999999999', ['an id is a whole number, e.g. 17']],
    ['in a union', z.object({ a: z.union([z.string(), z.number()]) }), { a: null }, ['a: a text is wanted']],
  ]
  for (const [what, schema, value, said] of cases) {
    it(what, () => expect(saidOf(schema, value)).to.deep.equal(said))
  }

  it('no row of the table lets zod speak', () => {
    const values = [undefined, null, 1, -1.5, 1e30, 'x', '', [], {}, [null], 'x'.repeat(5_000), true]
    for (const [name, { params, query, body }] of Object.entries<Route>(ROUTES)) {
      for (const part of [params, query, body]) {
        if (part === undefined) continue
        const fields = part instanceof z.ZodObject ? Object.keys(part.shape) : []
        const whole = values.map(value => Object.fromEntries(fields.map(field => [field, value])))
        for (const value of [...values, ...whole]) {
          const said = saidOf(part, value)
          expect(new Set(said).size, name).to.equal(said.length)
          for (const words of said) expect(words, name).not.to.match(/Invalid|Too (small|big)|expected|received/)
        }
      }
    }
  })
})
