import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Random } from '../../shared/runtime/random.ts'
import { macaroonPackets } from '../../shared/storage/macaroon-packets.ts'
import { type Capability, isPrefix, type Parsed, parsePath } from '../wlcg.ts'
import type { Operation } from './authorize.ts'
import type { Exchange } from './exchange.ts'
import { Refusal } from './refusal.ts'

/** What a credential is good for here, and until when (epoch seconds). */
export interface Verified {
  readonly capabilities: readonly Capability[]
  readonly expires: number
}

const REQUEST = 'application/macaroon-request'
/** XRootD's limit. */
const REQUEST_LIMIT_BYTES = 4096
const LONGEST_SECONDS = 86_400
const VALIDITY = /^PT(?=\d)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6})S)?$/

/** What each activity needs of the token that asks, and what it is then good for. */
const ACTIVITIES: ReadonlyMap<string, { needs: Operation; verb: Capability['verb'] }> = new Map([
  ['DOWNLOAD', { needs: 'read', verb: 'read' }],
  ['UPLOAD', { needs: 'create', verb: 'create' }],
] as const)

/** No token is for a name like this, so what it permits on it, it permits on everything in the directory. */
const ANY_NAME = '\0'

/**
 * The storage's own tokens (facts/http-tpc.md section 7): macaroons in the format of libmacaroons 1, an HMAC chained over
 * caveats, by a key that lives as long as the storage runs. They allow one or two activities at one path for a time, and never
 * more than the token that asked: not its holder's other paths, not after its end, and no other macaroon.
 */
export class MacaroonMint {
  readonly #location: string
  readonly #key: Buffer
  readonly #random: Random
  readonly #clock: Clock

  constructor({ name, random, clock }: { name: string; random: Random; clock: Clock }) {
    this.#location = name
    this.#key = random.bytes(32)
    this.#random = random
    this.#clock = clock
  }

  /** `POST` of a macaroon request by the holder of a token. Throws `Refusal`. */
  async answer(exchange: Exchange, asker: Verified): Promise<void> {
    if (exchange.header('content-type') !== REQUEST) throw new Refusal(415, `send Content-Type: ${REQUEST}`)
    const { activities, seconds } = requested(await bodyOf(exchange))
    const below = /\/$/.test(exchange.request.url ?? '')
    const at = below ? [...exchange.path, ANY_NAME] : exchange.path
    const granted = activities.filter(activity => {
      const needs = ACTIVITIES.get(activity)?.needs
      return needs !== undefined && exchange.permits(needs, at)
    })
    if (granted.length === 0) throw new Refusal(403, 'the token grants none of these activities here')
    const expires = Math.min(Math.floor(this.#clock.now() / 1000) + seconds, Math.floor(asker.expires))
    const path = `/${exchange.path.map(encodeURIComponent).join('/')}${below && exchange.path.length > 0 ? '/' : ''}`
    const macaroon = this.#seal([`activity:${granted.join(',')}`, `path:${path}`, `before:${timeText(expires)}`])
    const life = expires - Math.floor(this.#clock.now() / 1000)
    exchange.answer(200, JSON.stringify({ macaroon, expires_in: life }), { 'Content-Type': 'application/json' })
  }

  /** undefined: it is no macaroon. */
  verify(token: string): Parsed<Verified> | undefined {
    const packets = macaroonPackets(token)
    if (packets === undefined) return undefined
    const identifier = packets.find(([key]) => key === 'identifier')?.[1] ?? ''
    const caveats = packets.filter(([key]) => key === 'cid').map(([, value]) => value)
    const signature = Buffer.from(packets.at(-1)?.[1] ?? '', 'latin1')
    const expected = this.#signature(identifier, caveats)
    if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) {
      return { ok: false, reason: 'the macaroon is none of this storage' }
    }
    const held = heldIn(caveats)
    if (held.ok && this.#clock.now() / 1000 >= held.value.expires) return { ok: false, reason: 'it has expired' }
    return held
  }

  #seal(caveats: readonly string[]): string {
    const identifier = this.#random.uuid()
    const packets = [
      packet('location', this.#location),
      packet('identifier', identifier),
      ...caveats.map(caveat => packet('cid', caveat)),
      packet('signature', this.#signature(identifier, caveats).toString('latin1')),
    ]
    return Buffer.from(packets.join(''), 'latin1').toString('base64url')
  }

  /** Each caveat is signed with the signature so far: whoever holds a macaroon can add one, and take none away. */
  #signature(identifier: string, caveats: readonly string[]): Buffer {
    const sign = (key: Buffer, text: string) => createHmac('sha256', key).update(text, 'latin1').digest()
    return caveats.reduce(sign, sign(this.#key, identifier))
  }
}

/** All caveats together: what every one of them allows. One that is not understood allows nothing. */
function heldIn(caveats: readonly string[]): Parsed<Verified> {
  let activities = [...ACTIVITIES.keys()]
  let place: Pick<Capability, 'path' | 'below'> = { path: [], below: true }
  let expires = Number.POSITIVE_INFINITY
  for (const caveat of caveats) {
    const [, name, value = ''] = /^([a-z]+):(.*)$/s.exec(caveat) ?? []
    const path = parsePath(value)
    if (name === 'activity') activities = activities.filter(activity => value.split(',').includes(activity))
    else if (name === 'before' && !Number.isNaN(Date.parse(value)))
      expires = Math.min(expires, Date.parse(value) / 1000)
    else if (name === 'path' && path.ok && isPrefix(place.path, path.value)) {
      const below = value.endsWith('/') || (place.below && place.path.length === path.value.length)
      place = { path: path.value, below }
    } else return { ok: false, reason: 'the macaroon has a caveat that cannot be fulfilled' }
  }
  const capabilities = activities.flatMap(activity => {
    const verb = ACTIVITIES.get(activity)?.verb
    return verb === undefined ? [] : [{ verb, ...place }]
  })
  return { ok: true, value: { capabilities, expires } }
}

function packet(key: string, value: string): string {
  const text = `${key} ${value}\n`
  return `${(text.length + 4).toString(16).padStart(4, '0')}${text}`
}

function timeText(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, 'Z')
}

async function bodyOf(exchange: Exchange): Promise<unknown> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of exchange.request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > REQUEST_LIMIT_BYTES) throw new Refusal(413, `a request has at most ${REQUEST_LIMIT_BYTES} bytes`)
    chunks.push(chunk)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch {
    throw new Refusal(400, 'the request is no JSON')
  }
}

function requested(body: unknown): { activities: readonly string[]; seconds: number } {
  const { caveats, validity } = typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {}
  const [caveat, ...others] = Array.isArray(caveats) ? caveats : []
  const activities = /^activity:([A-Z_,]+)$/.exec(String(caveat))?.[1]?.split(',')
  if (activities === undefined || others.length > 0) throw new Refusal(400, 'one caveat is taken: activity')
  const [, hours = 0, minutes = 0, seconds = 0] = VALIDITY.exec(String(validity)) ?? []
  const asked = Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)
  if (asked === 0) throw new Refusal(400, 'the validity is no duration in hours, minutes and seconds: PT10M')
  return { activities, seconds: Math.min(asked, LONGEST_SECONDS) }
}
