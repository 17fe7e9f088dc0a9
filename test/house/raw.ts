import { expect } from 'chai'
import type { z } from 'zod'
import { problem } from '../../shared/contract/fields.ts'
import type { Secret } from '../../shared/domain/secret.ts'
import { AUDIENCE, type House } from './house.ts'

export interface RawRequest {
  /** Default: the manager's. */
  readonly token?: Secret | string | undefined
  readonly headers?: Record<string, string>
  /** Text goes as it is, all else as JSON. */
  readonly body?: unknown
}

export interface Answered {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
}

/** Requests that the typed client would not send. */
export class RawCalls {
  readonly #house: House
  readonly #manager: Secret

  private constructor(house: House, manager: Secret) {
    this.#house = house
    this.#manager = manager
  }

  static async create(house: House): Promise<RawCalls> {
    return new RawCalls(house, await house.token('manager', AUDIENCE, ['wlcg']))
  }

  async call(method: string, path: string, request: RawRequest = {}): Promise<Answered> {
    const { body, headers = {} } = request
    const token = 'token' in request ? request.token : this.#manager
    const bearer = typeof token === 'object' ? token.reveal() : token
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    const response = await this.#house.http.request({
      method,
      url: `${this.#house.baseUrl}${path}`,
      headers: {
        ...(bearer === undefined ? {} : { Authorization: `Bearer ${bearer}` }),
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: text }),
    })
    return { status: response.status, headers: response.headers, text: await response.text(10_000_000) }
  }

  /** The problem document of a request that must be refused so. */
  async refusal(
    expected: readonly [status: number, code: string, field?: string],
    method: string,
    path: string,
    request: RawRequest = {},
  ): Promise<z.output<typeof problem>> {
    const found = problemOf(await this.call(method, path, request))
    const [status, code, field] = expected
    expect({ status: found.status, code: found.code, field: found.field }, found.detail).to.deep.equal({
      status,
      code,
      field,
    })
    return found
  }
}

/** The problem document in an answer; its form is checked (RFC 9457). */
export function problemOf({ status, headers, text }: Answered): z.output<typeof problem> {
  expect(headers['content-type'], text).to.match(/^application\/problem\+json/)
  const document = problem.parse(JSON.parse(text))
  expect(document.status).to.equal(status)
  expect(document.id).to.match(/^[0-9a-f]{16}$/)
  return document
}
