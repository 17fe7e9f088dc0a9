import type { IncomingMessage, ServerResponse } from 'node:http'

export type ErrorCode =
  | 'invalid_request'
  | 'invalid_client'
  | 'invalid_grant'
  | 'unauthorized_client'
  | 'unsupported_grant_type'
  | 'invalid_scope'
  | 'invalid_target'
  | 'access_denied'
  | 'server_error'
  | 'temporarily_unavailable'

/** An error answer of RFC 6749 section 5.2, with the statuses that INDIGO IAM uses (facts/tokens.md section 2). */
export class OAuthError extends Error {
  readonly code: ErrorCode
  readonly status: number

  constructor(code: ErrorCode, description: string, status = STATUS[code] ?? 400) {
    super(description)
    this.code = code
    this.status = status
  }
}

const STATUS: Partial<Record<ErrorCode, number>> = { invalid_client: 401, access_denied: 403 }

export const GRANT = {
  clientCredentials: 'client_credentials',
  exchange: 'urn:ietf:params:oauth:grant-type:token-exchange',
  refresh: 'refresh_token',
} as const
export type GrantType = (typeof GRANT)[keyof typeof GRANT]

export const TOKEN_TYPE = {
  access: 'urn:ietf:params:oauth:token-type:access_token',
  refresh: 'urn:ietf:params:oauth:token-type:refresh_token',
  jwt: 'urn:ietf:params:oauth:token-type:jwt',
} as const

/** A form of RFC 6749 section 3.2: parameters without a value count as omitted, and none may be there twice. */
export class Form {
  readonly #parameters: URLSearchParams

  constructor(body: string) {
    this.#parameters = new URLSearchParams(body)
  }

  get(name: string): string | undefined {
    const values = this.#parameters.getAll(name)
    if (values.length > 1) throw new OAuthError('invalid_request', `the parameter ${name} is there more than once`)
    return values[0] === '' ? undefined : values[0]
  }

  require(name: string): string {
    const value = this.get(name)
    if (value === undefined) throw new OAuthError('invalid_request', `the parameter ${name} is missing`)
    return value
  }

  /** Space-separated values of all parameters of these names (audiences may come as several `resource`s, RFC 8707). */
  list(...names: string[]): string[] {
    return [...new Set(names.flatMap(name => this.#parameters.getAll(name)).flatMap(words))]
  }
}

export function words(text: string): string[] {
  return text.split(' ').filter(word => word !== '')
}

const MAX_BODY_BYTES = 64 * 1024

export async function readForm(request: IncomingMessage): Promise<Form> {
  const type = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase()
  if (type !== 'application/x-www-form-urlencoded') {
    throw new OAuthError('invalid_request', 'the body must be application/x-www-form-urlencoded')
  }
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BODY_BYTES)
      throw new OAuthError('invalid_request', `the body has more than ${MAX_BODY_BYTES} bytes`, 413)
    chunks.push(chunk)
  }
  return new Form(Buffer.concat(chunks).toString('utf8'))
}

export function answerJson(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Record<string, string> = {},
): void {
  const text = JSON.stringify(body)
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
    ...headers,
  })
  response.end(text)
}

export function answerError(response: ServerResponse, error: OAuthError, headers: Record<string, string> = {}): void {
  const challenge = error.status === 401 ? { 'WWW-Authenticate': 'Basic realm="waybill sandbox"' } : {}
  answerJson(
    response,
    error.status,
    { error: error.code, error_description: error.message },
    { ...challenge, ...headers },
  )
}
