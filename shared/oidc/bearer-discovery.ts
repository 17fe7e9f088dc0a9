import { WaybillError } from '../domain/errors.ts'
import { Secret } from '../domain/secret.ts'
import type { Environment } from '../runtime/environment.ts'
import { isBearerToken } from './token-answer.ts'

export interface BearerDiscoveryOptions {
  environment: Environment
  /** The effective user id. */
  userId: number
  /** The file's text; undefined if there is no such file. Any other trouble rejects. */
  readFile: (path: string) => Promise<string | undefined>
}

export interface DiscoveredBearer {
  token: Secret
  /** For people: `BEARER_TOKEN`, or the path of the file. */
  source: string
}

/** C99 `isspace`, as the specification has it. */
const EDGES = /^[ \f\n\r\t\v]+|[ \f\n\r\t\v]+$/g

/**
 * WLCG Bearer Token Discovery (facts/tokens.md section 1): the first place that holds anything decides. Undefined if none
 * does. Rejects with `TOKEN_MALFORMED` if that is no token, and with `TOKEN_UNREADABLE` if it cannot be read: going on would
 * use a token that the person did not mean.
 */
export async function discoverBearer(options: BearerDiscoveryOptions): Promise<DiscoveredBearer | undefined> {
  for (const { source, read } of places(options)) {
    const token = (await read())?.replace(EDGES, '')
    if (!token) continue
    if (!isBearerToken(token)) {
      throw new WaybillError('TOKEN_MALFORMED', `${source} holds something that is no bearer token`, { status: 401 })
    }
    return { token: new Secret(token), source }
  }
  return undefined
}

function places(options: BearerDiscoveryOptions): { source: string; read: () => Promise<string | undefined> }[] {
  const { environment, userId } = options
  const { BEARER_TOKEN, BEARER_TOKEN_FILE, XDG_RUNTIME_DIR } = environment
  const files = [BEARER_TOKEN_FILE, XDG_RUNTIME_DIR && `${XDG_RUNTIME_DIR}/bt_u${userId}`, `/tmp/bt_u${userId}`]
  return [
    { source: 'BEARER_TOKEN', read: async () => BEARER_TOKEN },
    ...files.flatMap(file => (file ? [fileAt(file, options)] : [])),
  ]
}

function fileAt(path: string, { readFile }: BearerDiscoveryOptions): ReturnType<typeof places>[number] {
  return {
    source: path,
    read: async () => {
      try {
        return await readFile(path)
      } catch (cause) {
        throw new WaybillError('TOKEN_UNREADABLE', `the token file ${path} cannot be read`, { status: 401, cause })
      }
    },
  }
}
