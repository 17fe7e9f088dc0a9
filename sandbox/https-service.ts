import { readFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import { WaybillError } from '../shared/domain/errors.ts'
import type { Authority } from './authority.ts'

export type Handler = (request: IncomingMessage, response: ServerResponse) => Promise<void>

export interface RunningService {
  readonly name: string
  /** `https://localhost:PORT`, without a trailing slash. */
  readonly url: string
  /** Resolves when the requests that are being handled now have been, also those whose clients have gone. */
  settled(): Promise<void>
  /** Cuts all connections: to its clients the service has died. Resolves when no request is being handled any more. */
  stop(): Promise<void>
}

/** XRootD and StoRM close idle connections after 30 s, and so does the sandbox (facts/http-tpc.md section 8). */
const KEEP_ALIVE_MS = 30_000
const HEADERS_MS = 15_000
/** RS256 tokens in `Authorization` and `TransferHeaderAuthorization` at once. */
const MAX_HEADER_BYTES = 64 * 1024

/** Serves `handler`, which never rejects, over TLS on loopback. Throws `SANDBOX_PORT_TAKEN`. */
export async function serveHttps(
  name: string,
  port: number,
  authority: Authority,
  handler: Handler,
): Promise<RunningService> {
  const server = createServer({
    cert: await readFile(authority.certificateFile),
    key: await readFile(authority.keyFile),
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: HEADERS_MS,
    requestTimeout: 0, // an upload may take hours
    maxHeaderSize: MAX_HEADER_BYTES,
    noDelay: true,
  })
  const underWay = new Set<Promise<void>>()
  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    const handled = handler(request, response).finally(() => underWay.delete(handled))
    underWay.add(handled)
  }
  server.on('request', serve)
  // With `Expect: 100-continue` the handler decides whether the body may come.
  server.on('checkContinue', serve)
  await listen(server, name, port)
  const settled = async (): Promise<void> => void (await Promise.allSettled(underWay))
  const stop = async (): Promise<void> => {
    await close(server)
    await settled()
  }
  return { name, url: `https://localhost:${port}`, settled, stop }
}

function listen(server: Server, name: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (error: Error): void => {
      const taken = 'code' in error && error.code === 'EADDRINUSE'
      const advice = `port ${port}, for ${name}, is taken by another process: end it, or take another directory and --port-base`
      reject(taken ? new WaybillError('SANDBOX_PORT_TAKEN', advice, { cause: error }) : error)
    }
    server.once('error', refuse)
    server.listen(port, '127.0.0.1', () => {
      server.off('error', refuse)
      resolve()
    })
  })
}

function close(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    server.close(error => (error === undefined ? resolve() : reject(error)))
    server.closeAllConnections()
  })
}
