import type { IncomingMessage, ServerResponse } from 'node:http'
import { text } from 'node:stream/consumers'
import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { StorageError, type TapeClient } from '../../shared/storage/types.ts'
import { ManualClock } from './http-manual-clock.ts'
import { Stage } from './storage-stage.ts'

export const TOKEN = new Secret('the-token-0123')
export const WELL_KNOWN = '/.well-known/wlcg-tape-rest-api'

type Play = (request: IncomingMessage, response: ServerResponse, body: string) => void

/** Storages whose tape API plays a part, at /api/v1, and a client of it. */
export class TapeStage {
  readonly clock = new ManualClock()
  readonly stage = new Stage(this.clock)

  get tape(): TapeClient {
    return this.stage.client.tape
  }

  /** What was asked so far: verb and path. */
  get verbs(): string[] {
    return this.stage.asked.map(({ method, path }) => `${method} ${path}`)
  }

  /** `bodies`: what was posted. */
  async storage(play: Play): Promise<{ url: string; bodies: unknown[] }> {
    const bodies: unknown[] = []
    const url = await this.stage.storage((request, response) => {
      if (request.url === WELL_KNOWN) {
        json(response, 200, { sitename: 'se', endpoints: [{ uri: `${url}/api/v1/`, version: 'v1' }] })
        return
      }
      void text(request).then(body => {
        if (body !== '') bodies.push(JSON.parse(body))
        play(request, response, body)
      })
    })
    return { url, bodies }
  }

  answering(status: number, body: unknown, headers: Record<string, string> = {}) {
    return this.storage((_request, response) => json(response, status, body, headers))
  }

  close(): void {
    this.stage.close()
  }
}

export function json(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(body))
}

/** Code and scope of what it fails with. */
export async function failure(run: Promise<unknown>): Promise<string> {
  const error = await run.catch((error: unknown) => error)
  expect(error).to.be.instanceOf(StorageError)
  return error instanceof StorageError ? `${error.failure.code} ${error.failure.scope}` : ''
}
