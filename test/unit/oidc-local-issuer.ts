import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect } from 'chai'
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose'
import { WaybillError } from '../../shared/domain/errors.ts'
import type { Fetch } from '../../shared/oidc/issuer-client.ts'

export interface SeenRequest {
  method: string
  path: string
  authorization: string | undefined
  form: Record<string, string>
}

export type Algorithm = 'ES256' | 'RS256'

export type Handler = (request: SeenRequest, response: ServerResponse) => void | Promise<void>

/**
 * An issuer for tests: a real HTTP server on loopback, reached by a `fetch` that sends there what is meant for
 * `https://issuer.example`. It answers discovery and keys; the rest is what a test makes of it.
 */
export interface LocalIssuer {
  fetch: Fetch
  /** Every request, in order. */
  seen: SeenRequest[]
  /** The answer to one path, from now on. */
  on(path: string, handler: Handler): void
  sign(claims: JWTPayload, header?: { kid?: string }): Promise<string>
  /** A new signing key; the old one is published no more. */
  rotate(kid: string, alg?: Algorithm): Promise<void>
  stop(): Promise<void>
}

export const ORIGIN = 'https://issuer.example'

export function json(response: ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

/** `name`: the path of the issuer, as `/vo` or `/vo/`; none for an issuer at the top of its host. */
export async function startLocalIssuer(name = ''): Promise<LocalIssuer> {
  const seen: SeenRequest[] = []
  const handlers = new Map<string, Handler>()
  let key = await newKey('key-1', 'ES256')

  const server = createServer(async (request, response) => {
    const body = await text(request)
    const path = request.url ?? ''
    const { method = '', headers } = request
    const entry = {
      method,
      path,
      authorization: headers.authorization,
      form: Object.fromEntries(new URLSearchParams(body)),
    }
    seen.push(entry)
    const handler = handlers.get(path)
    if (handler) await handler(entry, response)
    else response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>Not found</h1>')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo

  handlers.set(`${name.replace(/\/$/, '')}/.well-known/openid-configuration`, (_request, response) =>
    json(response, {
      issuer: ORIGIN + name,
      token_endpoint: `${ORIGIN}/token`,
      revocation_endpoint: `${ORIGIN}/revoke`,
      jwks_uri: `${ORIGIN}/jwks`,
    }),
  )
  handlers.set('/jwks', async (_request, response) => {
    const jwk: JWK = { ...(await exportJWK(key.publicKey)), kid: key.kid }
    json(response, { keys: [jwk] })
  })

  return {
    seen,
    fetch: (url, init) => {
      expect(url, 'nothing but the issuer is ever asked').to.match(/^https:\/\/issuer\.example\//)
      return fetch(url.replace(ORIGIN, `http://127.0.0.1:${port}`), init)
    },
    on: (path, handler) => void handlers.set(path, handler),
    sign: (claims, { kid = key.kid } = {}) =>
      new SignJWT(claims).setProtectedHeader({ alg: key.alg, kid }).sign(key.privateKey),
    async rotate(kid, alg = 'ES256') {
      key = await newKey(kid, alg)
    },
    async stop() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

interface SigningKey {
  kid: string
  alg: Algorithm
  privateKey: CryptoKey
  publicKey: CryptoKey
}

async function newKey(kid: string, alg: Algorithm): Promise<SigningKey> {
  return { kid, alg, ...(await generateKeyPair(alg)) }
}

async function text(request: IncomingMessage): Promise<string> {
  let body = ''
  for await (const chunk of request.setEncoding('utf8')) body += chunk
  return body
}

/** The error that a promise rejects with. */
export async function rejection(work: Promise<unknown>): Promise<WaybillError> {
  const error = await work.then(
    () => expect.fail('it was not refused'),
    (reason: unknown) => reason,
  )
  return error instanceof WaybillError ? error : expect.fail(`not a WaybillError: ${error}`)
}

/** The error that a function throws. */
export function refusal(work: () => unknown): WaybillError {
  try {
    work()
  } catch (error) {
    return error instanceof WaybillError ? error : expect.fail(`not a WaybillError: ${error}`)
  }
  return expect.fail('it was not refused')
}
