import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ClientName } from '../../../sandbox/issuer/clients.ts'
import { prepareSandbox, type Sandbox } from '../../../sandbox/main.ts'
import { createAgentClient } from '../../../shared/http/agent-client.ts'
import type { HttpClient } from '../../../shared/http/client.ts'
import { createTrust } from '../../../shared/http/trust.ts'
import { systemClock } from '../../../shared/runtime/clock.ts'
import { silentLogger } from '../../../shared/runtime/logger.ts'

export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
}

export interface CallOptions {
  readonly token?: string
  readonly headers?: Record<string, string>
  readonly body?: string | Buffer
}

/** A sandbox in a directory of its own, on free ports, and an HTTP client that trusts its CA. */
export class Fixture {
  readonly sandbox: Sandbox
  readonly http: HttpClient

  private constructor(sandbox: Sandbox) {
    this.sandbox = sandbox
    const trust = createTrust({
      path: sandbox.authority.caFile,
      defaultRoots: false,
      clock: systemClock,
      log: silentLogger,
    })
    this.http = createAgentClient({ trust, clock: systemClock })
  }

  static async create(): Promise<Fixture> {
    const dir = await mkdtemp(join(tmpdir(), 'waybill-sandbox-'))
    return new Fixture(await prepareSandbox({ dir, portBase: 0 }))
  }

  async remove(): Promise<void> {
    this.http.close()
    await rm(this.sandbox.directory, { recursive: true })
  }

  storage(name: string): Sandbox['storages'][number] {
    const found = this.sandbox.storages.find(storage => storage.name === name)
    if (found === undefined) throw new Error(`no storage ${name}`)
    return found
  }

  async call(method: string, url: string, { token, headers = {}, body }: CallOptions = {}): Promise<Reply> {
    const response = await this.http.request({
      method,
      url,
      headers: {
        ...headers,
        ...(token !== undefined && { Authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'Content-Length': String(Buffer.byteLength(body)) }),
      },
      ...(body !== undefined && { body }),
    })
    return { status: response.status, headers: response.headers, text: await response.text(10_000_000) }
  }

  /** For paths that a URL would put in order before they are sent. */
  async statusOfRawPath(method: string, origin: string, path: string, token: string): Promise<number | undefined> {
    const { hostname, port } = new URL(origin)
    const ca = await readFile(this.sandbox.authority.caFile)
    const headers = { Authorization: `Bearer ${token}` }
    const outgoing = request({ method, hostname, port, path, ca, headers, agent: false }).end()
    const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage]
    incoming.resume()
    return incoming.statusCode
  }

  /** A form at one of the issuer's endpoints, the client authenticated by Basic. */
  form(path: string, client: ClientName, fields: Record<string, string>): Promise<Reply> {
    const { id, secret } = this.sandbox.clients[client]
    const credentials = Buffer.from(`${id}:${secret.reveal()}`).toString('base64')
    return this.call('POST', `${this.sandbox.issuer}${path}`, {
      headers: { 'Content-Type': 'application/x-www-form-urlencoded', Authorization: `Basic ${credentials}` },
      body: new URLSearchParams(fields).toString(),
    })
  }

  /** A storage token of the client `server`; the audience is the storage's, or whatever is given instead. */
  async token(scope: string, audience: string): Promise<string> {
    const reply = await this.form('/token', 'server', { grant_type: 'client_credentials', scope, audience })
    if (reply.status !== 200) throw new Error(`no token: ${reply.text}`)
    return String(JSON.parse(reply.text).access_token)
  }
}
