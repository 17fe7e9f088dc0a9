import { join } from 'node:path'
import type { Sandbox } from '../../sandbox/main.ts'
import type { Secret } from '../../shared/domain/secret.ts'
import type { HttpClient } from '../../shared/http/client.ts'
import { asFetch } from '../../shared/http/fetch.ts'
import { createIssuerClient } from '../../shared/oidc/issuer-client.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import { writeSecret } from './settings.ts'

export interface ManagerToken {
  /** Where people find it (`BEARER_TOKEN_FILE`). */
  readonly file: string
  current(): Secret
  /** Resolves when `signal` aborts. */
  keepFresh(signal: AbortSignal): Promise<void>
}

/** A data manager's token for the API, from the sandbox's issuer, in a file as `oidc-agent` and `htgettoken` leave it. */
export async function managerToken(
  { issuer, directory, clients }: Sandbox,
  api: string,
  http: HttpClient,
  clock: Clock,
): Promise<ManagerToken> {
  const client = createIssuerClient({
    url: issuer,
    clientId: clients.manager.id,
    clientSecret: clients.manager.secret,
    authentication: 'basic',
    audienceParameter: 'audience',
    fetch: asFetch(http),
    clock,
    timeoutMs: 10_000,
  })
  const file = join(directory, 'manager.token')
  const renew = async () => {
    const tokens = await client.mint({ audience: api, scopes: ['wlcg'] })
    await writeSecret(file, tokens.accessToken)
    return tokens
  }
  let held = await renew()
  return {
    file,
    current: () => held.accessToken,
    async keepFresh(signal) {
      while (!signal.aborted) {
        await clock.sleep((held.expiresAt - clock.now()) / 2, signal)
        // An issuer that is away is asked again when half of what is left has passed.
        if (!signal.aborted) held = await renew().catch(() => held)
      }
    },
  }
}
