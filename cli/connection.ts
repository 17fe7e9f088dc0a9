import { readFile } from 'node:fs/promises'
import { type Client, createClient } from '../shared/contract/client.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import type { Secret } from '../shared/domain/secret.ts'
import { createAgentClient } from '../shared/http/agent-client.ts'
import { createGotClient } from '../shared/http/got-client.ts'
import { createTrust } from '../shared/http/trust.ts'
import { discoverBearer } from '../shared/oidc/bearer-discovery.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Environment } from '../shared/runtime/environment.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import { createStorageClient } from '../shared/storage/storage-client.ts'
import type { StorageClient } from '../shared/storage/types.ts'

export interface ConnectionOptions {
  /** URL of the rules server. */
  readonly server: string
  /** CA certificates to believe beside the usual ones: a file or a directory. */
  readonly ca?: string | undefined
  readonly token: () => Promise<Secret | undefined>
  readonly clock: Clock
  readonly log: Logger
}

/** The two things that commands talk to. */
export interface Connection {
  readonly client: Client
  readonly storage: StorageClient
  close(): void
}

export function openConnection({ server, ca, token, clock, log }: ConnectionOptions): Connection {
  const trust = createTrust({ ...(ca === undefined ? {} : { path: ca }), defaultRoots: true, clock, log })
  const http = createGotClient({ trust })
  const copyClient = createAgentClient({ trust, clock })
  const fileClient = createAgentClient({ trust, clock })
  return {
    client: createClient({ baseUrl: server, http, token, userAgent: 'waybill-cli', checkCalls: true }),
    storage: createStorageClient({ copyClient, client: fileClient, clock }),
    close() {
      for (const client of [http, copyClient, fileClient]) client.close()
    },
  }
}

/** The person's token, found the WLCG way before each request: whoever renews it in its file does so under a long command. */
export async function personsToken(environment: Environment, userId: number): Promise<Secret> {
  const found = await discoverBearer({ environment, userId, readFile: readTextOrNothing })
  if (found !== undefined) return found.token
  throw new WaybillError(
    'TOKEN_NOT_FOUND',
    `no token: set BEARER_TOKEN or BEARER_TOKEN_FILE, or put it where htgettoken does: $XDG_RUNTIME_DIR/bt_u${userId} or /tmp/bt_u${userId}`,
  )
}

async function readTextOrNothing(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}
