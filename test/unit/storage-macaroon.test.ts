import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { activityFault, macaroonPackets } from '../../shared/storage/macaroon-packets.ts'
import { StorageError } from '../../shared/storage/types.ts'
import { storageWords } from '../../shared/storage/words.ts'
import { Stage } from './storage-stage.ts'

const TOKEN = new Secret('the-token-0123')
/** What XRootD 5.5.3 gave to the holder of a certificate, and to the holder of a JWT or of nothing, who asked for DOWNLOAD. */
const ALL = 'activity:READ_METADATA,UPLOAD,DOWNLOAD,DELETE,MANAGE,UPDATE_METADATA,LIST'
const LOOK = 'activity:READ_METADATA'

function sealed(...caveats: readonly string[]): string {
  const packet = (text: string) => `${(text.length + 5).toString(16).padStart(4, '0')}${text}\n`
  const texts = [
    'location SITE',
    'identifier 6c84f517',
    ...caveats.map(caveat => `cid ${caveat}`),
    `signature ${'\xab'.repeat(32)}`,
  ]
  return Buffer.from(texts.map(packet).join(''), 'latin1').toString('base64url')
}

const DOWNLOAD = sealed('name:host', ALL, 'activity:DOWNLOAD', 'path:/exp/ds/', 'before:2026-11-27T10:01:41Z')

describe('storage client: a macaroon', () => {
  let stage: Stage
  let bodies: string[]
  beforeEach(() => {
    stage = new Stage()
    bodies = []
  })
  afterEach(() => stage.close())

  const storage = (status: number, answer: string, headers: Record<string, string> = {}) =>
    stage.storage(async (request, response) => {
      let body = ''
      for await (const chunk of request) body += String(chunk)
      bodies.push(body)
      response.writeHead(status, headers).end(answer)
    })
  const ask = (url: string, lifeSeconds = 1200) =>
    stage.client.macaroon(`${url}/exp/ds/`, TOKEN, { activity: 'DOWNLOAD', lifeSeconds, scope: 'SOURCE' })
  const failure = async (run: Promise<unknown>) => {
    const error = await run.catch((error: unknown) => error)
    return error instanceof StorageError ? error.failure : expect.fail(`no StorageError: ${error}`)
  }

  it('is asked for at the directory, for one activity and a time, in the letters that storages compare', async () => {
    const url = await storage(200, JSON.stringify({ macaroon: DOWNLOAD }))
    const { token, lifeSeconds } = await ask(url, 1199.5)
    expect(token.reveal()).to.equal(DOWNLOAD)
    expect(lifeSeconds).to.equal(1199.5)
    expect(stage.asked[0]).to.deep.include({ method: 'POST', path: '/exp/ds/' })
    expect(stage.asked[0]?.headers).to.include({
      'Content-Type': 'application/macaroon-request',
      'Content-Length': '54',
      Authorization: 'Bearer the-token-0123',
    })
    expect(JSON.parse(bodies[0] ?? '')).to.deep.equal({ caveats: ['activity:DOWNLOAD'], validity: 'PT1200S' })
  })

  for (const [what, answer, life] of [
    ['XRootD`s', { macaroon: DOWNLOAD, expires_in: 1200 }, 1200],
    ['XRootD`s, whose life it has shortened', { macaroon: DOWNLOAD, expires_in: 60 }, 60],
    ['one that promises more than was asked for', { macaroon: DOWNLOAD, expires_in: 1e9 }, 1200],
    [
      'dCache`s',
      { macaroon: DOWNLOAD, uri: { target: 'https://d/', targetWithMacaroon: `https://d/?authz=${DOWNLOAD}` } },
      1200,
    ],
    ['StoRM`s, which is a JWT', { macaroon: 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl' }, 1200],
    ['one that cannot be read', { macaroon: 'an-opaque-token-of-some-length' }, 1200],
  ] as const) {
    it(`takes ${what}`, async () => {
      const { token, lifeSeconds } = await ask(await storage(200, JSON.stringify(answer)))
      expect([token.reveal(), lifeSeconds]).to.deep.equal([answer.macaroon, life])
    })
  }

  for (const [what, answer] of [
    ['no JSON', '<html>portal</html>'],
    ['no object', '"x"'],
    ['null', 'null'],
    ['no macaroon', '{"access_token":"x"}'],
    ['another type', '{"macaroon":["x"]}'],
    ['a short one', '{"macaroon":"short"}'],
    ['one that no header can carry', JSON.stringify({ macaroon: `${DOWNLOAD}\r\nX: y` })],
    ['one that is far too long', JSON.stringify({ macaroon: 'x'.repeat(8193) })],
    ['an answer that is far too long', JSON.stringify({ more: 'x'.repeat(70_000), macaroon: DOWNLOAD })],
  ] as const) {
    it(`is none: ${what}`, async () => {
      expect(await failure(ask(await storage(200, answer)))).to.include({
        code: 'PROTOCOL_VIOLATION',
        scope: 'SOURCE',
        message: 'no macaroon: the answer to POST holds none',
      })
    })
  }

  for (const [status, code, scope, retryable] of [
    [400, 'REQUEST_REFUSED', 'SOURCE', false],
    [401, 'TOKEN_REFUSED', 'TOKEN', true],
    [403, 'PERMISSION_DENIED', 'SOURCE', false],
    [404, 'NOT_SUPPORTED', 'SOURCE', false],
    [405, 'NOT_SUPPORTED', 'SOURCE', false],
    [415, 'NOT_SUPPORTED', 'SOURCE', false],
    [500, 'STORAGE_ERROR', 'SOURCE', true],
    [501, 'NOT_SUPPORTED', 'SOURCE', false],
    [204, 'PROTOCOL_VIOLATION', 'SOURCE', true],
  ] as const) {
    it(`${status} is ${code}`, async () => {
      const url = await storage(status, status === 204 ? '' : `no such file; you sent ${TOKEN.reveal()}`)
      const found = await failure(ask(url))
      expect(found).to.include({ code, scope, retryable, httpStatus: status })
      expect(found.message)
        .to.match(/^no macaroon: POST answered/)
        .and.not.contain(TOKEN.reveal())
    })
  }

  it('503 says when to come again', async () => {
    const url = await storage(503, '', { 'Retry-After': '7' })
    expect(await failure(ask(url))).to.include({ code: 'STORAGE_BUSY', retryAfterSeconds: 7 })
  })

  it('is refused when the storage left the activity out, as XRootD does for a token it does not look at', async () => {
    const macaroon = sealed(LOOK, 'activity:DOWNLOAD', 'path:/exp/ds/')
    const found = await failure(ask(await storage(200, JSON.stringify({ macaroon }))))
    expect(found).to.include({ code: 'PERMISSION_DENIED', scope: 'SOURCE', retryable: false })
    expect(found.message).to.contain('lacks DOWNLOAD').and.not.contain(macaroon)
  })

  it('is refused when it allows more than was asked for', async () => {
    const macaroon = sealed('activity:DOWNLOAD,DELETE', 'path:/exp/ds/')
    expect(await failure(ask(await storage(200, JSON.stringify({ macaroon }))))).to.include({
      code: 'PROTOCOL_VIOLATION',
    })
  })

  it('never shows in a storage`s words, though nobody knows it', () => {
    expect(storageWords(`403 for ${DOWNLOAD}, go away`)).to.equal('403 for [secret], go away')
    expect(storageWords(`https://d/f?authz=${DOWNLOAD}`)).not.to.contain(DOWNLOAD)
  })
})

describe('what a macaroon allows', () => {
  for (const [what, caveats, fault] of [
    ['what was asked for', ['activity:DOWNLOAD'], undefined],
    ['that and looking', ['activity:DOWNLOAD, READ_METADATA'], undefined],
    ['what all caveats allow', [ALL, 'activity:DOWNLOAD,LIST', 'activity:DOWNLOAD'], undefined],
    ['another activity', ['activity:UPLOAD'], 'narrower'],
    ['looking only', [LOOK, 'activity:DOWNLOAD'], 'narrower'],
    ['all', [ALL], 'wider'],
    ['anything, for want of a caveat', ['path:/'], 'wider'],
  ] as const) {
    it(`${what}: ${fault ?? 'fine'}`, () => expect(activityFault(sealed(...caveats), 'DOWNLOAD')).to.equal(fault))
  }

  for (const [what, macaroon] of [
    ['a JWT', 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl'],
    ['nothing', ''],
    ['a packet that ends outside', Buffer.from('0fffcid x\n').toString('base64url')],
    ['a packet without a length', Buffer.from('0000cid x\n').toString('base64url')],
    ['packets that begin with another', Buffer.from('000acid x\n').toString('base64url')],
  ] as const) {
    it(`is not to be read in ${what}`, () => {
      expect(macaroonPackets(macaroon)).to.equal(undefined)
      expect(activityFault(macaroon, 'DOWNLOAD')).to.equal(undefined)
    })
  }
})
