import { expect } from 'chai'
import { HttpFailure } from '../../shared/http/failure.ts'
import { createGotClient } from '../../shared/http/got-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import type { IssuerClient } from '../../shared/oidc/issuer-client.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { systemClock as clock } from '../../shared/runtime/clock.ts'
import { silentLogger as log } from '../../shared/runtime/logger.ts'
import { systemRandom as random } from '../../shared/runtime/random.ts'
import { TokenUnavailable } from '../../worker/failure.ts'
import { GrantTokens } from '../../worker/tokens.ts'
import { issuerClient, Stage } from './stage.ts'

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'

describe('the tokens of grants', () => {
  let stage: Stage
  let tokens: GrantTokens
  let grant: number
  let hits: boolean[]
  const ending = new AbortController()

  beforeEach(async () => {
    stage = await Stage.create()
    grant = (await stage.transfer('f', 'x')).source.grant
    hits = []
    tokens = await newTokens()
  })
  afterEach(() => stage.end())

  async function newTokens(more: { issuers?: ReadonlyMap<string, IssuerClient> } = {}): Promise<GrantTokens> {
    const recipient = await newRecipient()
    const { session } = await stage.server.api.openSession({ body: { worker: 'w', key: recipient.publicJwk } })
    return new GrantTokens({
      api: stage.server.api,
      session,
      recipient,
      issuers: stage.options.issuers,
      clock,
      random,
      signal: ending.signal,
      onLookup: hit => hits.push(hit),
      ...more,
    })
  }
  const refusal = async (work: Promise<unknown>) => {
    const error = await work.then(
      () => undefined,
      (reason: unknown) => reason,
    )
    return error instanceof TokenUnavailable ? error.failure : expect.fail(`not TokenUnavailable: ${error}`)
  }

  it('are exchanged once for all who want them, stored before they are used, and kept', async () => {
    const wanted = await Promise.all(Array.from({ length: 20 }, () => tokens.tokenFor(grant, 300)))
    expect(new Set(wanted).size).to.equal(1)
    expect(stage.issuer.requests.get(EXCHANGE)).to.equal(1)
    expect(stage.server.renewals).to.have.length(1)
    expect(stage.server.renewals[0]?.result).to.have.property('refreshToken')
    expect(await tokens.tokenFor(grant, 300)).to.equal(wanted[0])
    expect(hits.at(-1)).to.equal(true)
    expect(stage.server.called('acquireToken')).to.equal(1)
  })

  it('are asked for when the metadata of the issuers are there, which would cost of a lease', async () => {
    const order: string[] = []
    const issuers = new Map(
      [...stage.options.issuers].map(([url, issuer]) => [
        url,
        {
          ...issuer,
          discover: async () => {
            await clock.sleep(100)
            order.push('discovered')
          },
        },
      ]),
    )
    stage.server.before = name => {
      if (name === 'acquireToken') order.push('asked')
    }
    await (await newTokens({ issuers })).tokenFor(grant, 300)
    expect(order).to.deep.equal(['discovered', 'asked'])
  })

  it('are not held up by an issuer that is away', async () => {
    const away = { ...[...stage.options.issuers.values()][0], discover: () => Promise.reject(new Error('away')) }
    const issuers = new Map([...stage.options.issuers, ['https://away.example.org', away as IssuerClient]])
    await (await newTokens({ issuers })).tokenFor(grant, 300)
  })

  it('come from the vault when somebody else exchanged them', async () => {
    const token = await tokens.tokenFor(grant, 300)
    const other = await newTokens()
    expect((await other.tokenFor(grant, 300)).reveal()).to.equal(token.reveal())
    expect(stage.issuer.requests.get(EXCHANGE)).to.equal(1)
  })

  it('are refreshed when the server wants them renewed and half their life is gone', async () => {
    await tokens.tokenFor(grant, 300)
    const held = stage.server.grants.get(grant)
    if (held?.access === undefined) throw new Error('no token')
    held.access = { ...held.access, expiresAt: clock.now() + 1_000 }
    await tokens.renewAhead(grant)
    expect(stage.server.renewals.map(({ step }) => step)).to.deep.equal(['exchange', 'refresh'])
  })

  it('a lost answer to the report of a renewal costs nothing: the vault has it', async () => {
    let lose = true
    stage.server.after = name => {
      if (name !== 'reportRenewal' || !lose) return
      lose = false
      throw new HttpFailure('reset', 'POST', new URL('https://server.example/'))
    }
    const token = await tokens.tokenFor(grant, 300)
    expect(stage.server.grants.get(grant)?.access?.token.reveal()).to.equal(token.reveal())
    expect(stage.issuer.requests.get(EXCHANGE)).to.equal(1)
  })

  for (const [kind, code] of [
    ['wider', 'TOKEN_WIDER'],
    ['opaque', 'TOKEN_OPAQUE'],
    ['wrong-audience', 'TOKEN_AUDIENCE'],
  ] as const) {
    it(`a token that is ${kind} is reported as ${code} and never used`, async () => {
      stage.issuer.misbehave({ kind, grantType: EXCHANGE })
      expect(await refusal(tokens.tokenFor(grant, 300))).to.include({ scope: 'TOKEN', code, retryable: false })
      expect(stage.server.renewals.map(({ result }) => Object(result).code)).to.deep.equal([code])
    })
  }

  it('a busy issuer is reported with its Retry-After, and is worth another attempt', async () => {
    stage.issuer.misbehave({ kind: 'status', status: 429, retryAfterSeconds: 7, grantType: EXCHANGE })
    const failure = await refusal(tokens.tokenFor(grant, 300))
    expect(failure).to.include({ code: 'ISSUER_BUSY', retryable: true, retryAfterSeconds: 7 })
    expect(stage.server.renewals[0]?.result).to.include({ kind: 'failed', code: 'ISSUER_BUSY', retryAfterSeconds: 7 })
  })

  it('what the server refuses fails with its code', async () => {
    const held = stage.server.grants.get(grant)
    if (held !== undefined) held.refused = { code: 'TOKEN_REFUSED', message: 'the issuer said no' }
    expect(await refusal(tokens.tokenFor(grant, 300))).to.include({ code: 'TOKEN_REFUSED', retryable: false })
  })

  it('a wait that outlasts all patience fails at once, and says when to come again', async () => {
    const { api } = stage.server
    const slow = { ...api, acquireToken: async () => ({ kind: 'wait' as const, delayMs: 300_000 }) }
    const recipient = await newRecipient()
    const waiting = new GrantTokens({
      api: slow,
      session: 1,
      recipient,
      issuers: stage.options.issuers,
      clock,
      random,
      signal: ending.signal,
    })
    const failure = await refusal(waiting.tokenFor(grant, 300))
    expect(failure).to.include({ code: 'TOKEN_LATE', retryable: true, retryAfterSeconds: 300 })
  })

  it('an issuer that this worker does not know is reported by name', async () => {
    const trust = createTrust({ path: stage.sandbox.authority.caFile, defaultRoots: false, clock, log })
    const http = createGotClient({ trust })
    const recipient = await newRecipient()
    const { session } = await stage.server.api.openSession({ body: { worker: 'w', key: recipient.publicJwk } })
    const issuers = new Map([['https://other.example.org', issuerClient(stage.sandbox, http, 'worker')]])
    const { api } = stage.server
    const others = new GrantTokens({ api, session, recipient, issuers, clock, random, signal: ending.signal })
    expect(await refusal(others.tokenFor(grant, 300))).to.include({ code: 'ISSUER_NOT_CONFIGURED', retryable: true })
    http.close()
  })

  it('a token sealed for another grant is not taken', async () => {
    const other = (await stage.transfer('g', 'x')).source.grant
    await tokens.tokenFor(other, 300)
    const { api } = stage.server
    const recipient = await newRecipient()
    const { session } = await api.openSession({ body: { worker: 'w', key: recipient.publicJwk } })
    const swapped = {
      ...api,
      acquireToken: (call: Parameters<typeof api.acquireToken>[0]) =>
        api.acquireToken({ ...call, params: { id: other } }),
    }
    const { issuers } = stage.options
    const deceived = new GrantTokens({
      api: swapped,
      session,
      recipient,
      issuers,
      clock,
      random,
      signal: ending.signal,
    })
    expect(await refusal(deceived.tokenFor(grant, 300))).to.include({ code: 'TOKEN_MISDIRECTED' })
  })
})
