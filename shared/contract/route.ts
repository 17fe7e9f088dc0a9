import { z } from 'zod'

/**
 * Who may call: `public` without a token; `anyone` with a token of an issuer that the server trusts; `member` with an account,
 * or as an admin or worker, and sees what is of their VOs, an admin everything; `manager` with an account; `admin` and `worker`
 * as configured at the server.
 */
export type Role = 'public' | 'anyone' | 'member' | 'manager' | 'admin' | 'worker'

/**
 * What an account may be allowed to do in a scope: `write` its DIDs and replicas, make each `rule` on them, or `manage` it, which
 * is both, others' rules, and who may do what there.
 */
export type ScopePermission = 'write' | 'rule' | 'manage'

/** One row of the route table. Validation, OpenAPI, documentation, client and command line all come from it. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Path parameters in braces: `/v1/rules/{id}`. */
  readonly path: string
  readonly role: Role
  /**
   * What the caller needs in the scopes that the request changes something in; the handler sees to it. Every route by which an
   * account changes something has one (test/unit/contract.test.ts).
   */
  readonly permission?: ScopePermission
  readonly tag: string
  readonly summary: string
  readonly description?: string
  readonly params?: z.ZodObject
  readonly query?: z.ZodObject
  readonly body?: z.ZodType
  readonly answer: z.ZodType
  readonly status: 200 | 201 | 202
  /** Takes an `Idempotency-Key`: the same key and body again get the same answer, and nothing is done twice. */
  readonly idempotent?: boolean
}

export const NDJSON = 'application/x-ndjson'

/** What a list that is read a page at a time is made of; undefined for other rows. Such a list is given whole as NDJSON too. */
export function itemOf({ query, answer }: Route): z.ZodType | undefined {
  if (query?.shape.cursor === undefined || !(answer instanceof z.ZodObject)) return undefined
  const { items } = answer.shape
  return items instanceof z.ZodArray ? (items.element as z.ZodType) : undefined
}

/** Keeps the literal types of a row. */
export function route<const R extends Route>(definition: R): R {
  return definition
}

type Input<T> = T extends z.ZodType ? z.input<T> : undefined
type Output<T> = T extends z.ZodType ? z.output<T> : undefined
type Part<R extends Route, Key extends 'params' | 'query' | 'body'> = R extends { readonly [k in Key]: infer T }
  ? T
  : undefined

/** What a handler gets: parsed. */
export type Received<R extends Route> = {
  readonly params: Output<Part<R, 'params'>>
  readonly query: Output<Part<R, 'query'>>
  readonly body: Output<Part<R, 'body'>>
}

type Given<Key extends string, T> = T extends z.ZodType
  ? Record<string, never> extends z.input<T>
    ? { readonly [k in Key]?: Input<T> }
    : { readonly [k in Key]: Input<T> }
  : unknown

/** What a caller gives: before defaults are filled in. */
export type Call<R extends Route> = Given<'params', Part<R, 'params'>> &
  Given<'query', Part<R, 'query'>> &
  Given<'body', Part<R, 'body'>>

export type Answer<R extends Route> = z.output<R['answer']>
/** What a handler returns. */
export type Reply<R extends Route> = z.input<R['answer']>
