import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import { transferError } from '../../shared/contract/routes/worker.ts'
import type { TransferCode, TransferPhase, TransferScope } from '../../shared/domain/error-catalogue.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import { transferFailure } from '../../shared/storage/classify.ts'
import type { FileStatus } from '../../shared/storage/types.ts'
import { remedyFor } from '../../worker/copy.ts'
import { mayMeanExisting } from '../../worker/copy-turn.ts'
import { mayBeOwn, mayHaveLeft } from '../../worker/debris.ts'
import { reportedError } from '../../worker/failure.ts'
import { nextClaim } from '../../worker/loop.ts'
import { chooseMode, ModeMemory } from '../../worker/mode.ts'
import { permitLeft } from '../../worker/remove.ts'
import { backoff, isAway, isSessionOver } from '../../worker/server.ts'
import { stopBy } from '../../worker/session.ts'
import { concludeSettling } from '../../worker/settle.ts'
import { isFresh } from '../../worker/tokens.ts'
import { digestsToAsk, judge, type Sight, withPassed } from '../../worker/verify.ts'
import { manualClock } from '../unit/oidc-manual-clock.ts'

const failure = (
  code: TransferCode,
  scope: TransferScope = 'DESTINATION',
  phase: TransferPhase = 'PREPARATION',
  more: { side?: 'SOURCE' | 'DESTINATION'; httpStatus?: number } = {},
) => transferFailure(code, scope, phase, 'words', more)

describe('the worker decides', () => {
  describe('the mode', () => {
    const able = { canPull: true, canPush: true }
    const unable = { canPull: false, canPush: false }
    for (const [source, destination, unsupported, mode] of [
      [able, able, [], 'pull'],
      [able, able, ['pull'], 'push'],
      [able, able, ['pull', 'push'], 'stream'],
      [able, unable, [], 'push'],
      [unable, able, [], 'pull'],
      [unable, able, ['pull'], 'stream'],
      [unable, unable, [], 'stream'],
    ] as const) {
      const words = `source ${source.canPush ? 'pushes' : 'does not push'}, destination ${destination.canPull ? 'pulls' : 'does not pull'}, without ${unsupported.join(' and ') || 'nothing'}`
      it(`${words}: ${mode}`, () => expect(chooseMode(source, destination, new Set(unsupported))).to.equal(mode))
    }

    it('is the preferred one where both are possible', () => {
      expect(chooseMode(able, able, new Set(), 'push')).to.equal('push')
      expect(chooseMode(unable, able, new Set(), 'push')).to.equal('pull')
      expect(chooseMode(able, able, new Set(['push'] as const), 'push')).to.equal('pull')
      expect(chooseMode(able, able, new Set(['push', 'pull'] as const), 'push')).to.equal('stream')
    })

    it('remembers for ten minutes what two storages cannot do together', () => {
      const clock = manualClock()
      const memory = new ModeMemory(clock)
      memory.remember('A', 'B', 'pull')
      expect([...memory.unsupported('A', 'B')]).to.deep.equal(['pull'])
      expect([...memory.unsupported('B', 'A')]).to.deep.equal([])
      clock.advance(599_999)
      expect([...memory.unsupported('A', 'B')]).to.deep.equal(['pull'])
      clock.advance(1)
      expect([...memory.unsupported('A', 'B')]).to.deep.equal([])
    })
  })

  describe('what to do about a failed COPY', () => {
    const nothing = { parent: false, token: false }
    for (const [code, more, mode, done, remedy] of [
      ['NOT_SUPPORTED', {}, 'pull', nothing, 'another-mode'],
      ['NOT_SUPPORTED', {}, 'push', nothing, 'another-mode'],
      ['NOT_SUPPORTED', {}, 'stream', nothing, 'none'],
      ['PERMISSION_DENIED', {}, 'pull', nothing, 'none'],
      ['SOURCE_MISSING', {}, 'pull', nothing, 'none'],
      ['CANCELLED', {}, 'pull', nothing, 'none'],
      ['PARENT_MISSING', {}, 'pull', nothing, 'make-parent'],
      ['DESTINATION_CONFLICT', { httpStatus: 409 }, 'pull', nothing, 'make-parent'],
      ['REQUEST_REFUSED', { httpStatus: 400 }, 'pull', nothing, 'make-parent'],
      ['PARENT_MISSING', {}, 'pull', { parent: true, token: false }, 'none'],
      ['TOKEN_REFUSED', {}, 'pull', nothing, 'another-token'],
      ['TOKEN_REFUSED', {}, 'pull', { parent: false, token: true }, 'none'],
      ['PERMISSION_DENIED', {}, 'pull', nothing, 'none'],
      ['STORAGE_BUSY', {}, 'pull', nothing, 'none'],
    ] as const) {
      it(`${code} ${JSON.stringify(more)} of a ${mode}, ${JSON.stringify(done)}: ${remedy}`, () =>
        expect(remedyFor(failure(code, 'DESTINATION', 'PREPARATION', more), mode, done)).to.equal(remedy))
    }
  })

  describe('whether a refusal may mean that the file is there', () => {
    for (const [code, side, mode, may] of [
      ['TOKEN_REFUSED', 'DESTINATION', 'pull', true],
      ['PERMISSION_DENIED', 'DESTINATION', 'pull', true],
      ['TOKEN_REFUSED', 'SOURCE', 'pull', false],
      ['TOKEN_REFUSED', 'DESTINATION', 'push', false],
      ['STORAGE_BUSY', 'DESTINATION', 'pull', false],
    ] as const) {
      it(`${code} of the ${side.toLowerCase()} to a ${mode}: ${may ? 'look' : 'no'}`, () =>
        expect(mayMeanExisting(failure(code, 'TOKEN', 'PREPARATION', { side }), mode)).to.equal(may))
    }
  })

  describe('which checksums a streamed copy must have', () => {
    const passed = { adler32: '0000000a', md5: 'b'.repeat(32) }
    for (const [what, known, expected] of [
      ['those that passed, where the catalogue has none', {}, passed],
      ['the catalogue`s and the other one', { adler32: 'A' }, { ...passed, adler32: 'A' }],
      ['the catalogue`s alone, where another file passed', { adler32: '0000000c' }, { adler32: '0000000c' }],
      ['the catalogue`s alone, by md5', { md5: 'c'.repeat(32) }, { md5: 'c'.repeat(32) }],
    ] as const) {
      it(what, () => expect(withPassed(known, passed)).to.deep.equal(expected))
    }
    it('the catalogue`s where nothing passed', () =>
      expect(withPassed({ adler32: 'a' }, {})).to.deep.equal({ adler32: 'a' }))
  })

  describe('whether a failed attempt may have left something', () => {
    for (const [what, given, progress, left] of [
      ['nothing was sent', failure('PERMISSION_DENIED'), { sent: false, mode: 'pull' }, false],
      ['a file was found before anything was sent', failure('DESTINATION_EXISTS'), { sent: false, mode: 'push' }, true],
      ['the destination refused the pull', failure('PERMISSION_DENIED'), { sent: true, mode: 'pull' }, false],
      [
        'the destination refused the token',
        failure('TOKEN_REFUSED', 'TOKEN', 'PREPARATION', { side: 'DESTINATION' }),
        { sent: true, mode: 'pull' },
        false,
      ],
      [
        'the destination relays the source`s refusal',
        failure('TOKEN_REFUSED', 'TOKEN', 'PREPARATION', { side: 'SOURCE' }),
        { sent: true, mode: 'pull' },
        true,
      ],
      ['the source refused the push', failure('PERMISSION_DENIED', 'SOURCE'), { sent: true, mode: 'push' }, false],
      [
        'the source relays the destination`s refusal',
        failure('PERMISSION_DENIED', 'DESTINATION'),
        { sent: true, mode: 'push' },
        true,
      ],
      ['the destination is full', failure('DESTINATION_FULL'), { sent: true, mode: 'pull' }, true],
      ['it broke off', failure('SOURCE_CUT_OFF', 'SOURCE', 'TRANSFER'), { sent: true, mode: 'pull' }, true],
      ['busy before bytes went', failure('STORAGE_BUSY'), { sent: true, mode: 'stream' }, false],
      ['busy after', failure('STORAGE_BUSY', 'DESTINATION', 'TRANSFER'), { sent: true, mode: 'stream' }, true],
      ['no connection', failure('CONNECT_FAILED'), { sent: true, mode: 'pull' }, false],
      ['the source of a stream refused', failure('PERMISSION_DENIED', 'SOURCE'), { sent: true, mode: 'stream' }, false],
    ] as const) {
      it(`${what}: ${left ? 'look' : 'no'}`, () => expect(mayHaveLeft(given, progress)).to.equal(left))
    }
  })

  describe('whether what lies there may be a copy’s own', () => {
    const failed = (...given: Parameters<typeof failure>) => ({ kind: 'failed', error: failure(...given) }) as const
    const unknown = { kind: 'unknown', error: failure('CONNECTION_LOST', 'GENERAL') } as const
    for (const [what, outcome, mode, taken, own] of [
      ['it succeeded', { kind: 'done', bytes: 1, checksums: {} }, 'pull', true, true],
      ['it was taken and broke off', failed('SOURCE_CUT_OFF', 'SOURCE', 'TRANSFER'), 'pull', true, true],
      ['it was taken and got no end', unknown, 'pull', true, true],
      ['it got no answer', unknown, 'pull', false, false],
      ['it got no answer, after a look', unknown, 'push', false, true],
      ['it was refused for a file', failed('DESTINATION_EXISTS'), 'pull', false, false],
      [
        'it was taken, then refused for a file',
        failed('DESTINATION_EXISTS', 'DESTINATION', 'TRANSFER'),
        'pull',
        true,
        false,
      ],
      [
        'dCache says 500 for a file',
        failed('STORAGE_ERROR', 'DESTINATION', 'PREPARATION', { httpStatus: 500 }),
        'pull',
        false,
        false,
      ],
      ['the destination is full at once', failed('DESTINATION_FULL'), 'pull', false, false],
      [
        'the refusal of the source is relayed, as by XRootD from 5.7.2 on',
        failed('TOKEN_REFUSED', 'TOKEN', 'PREPARATION', { side: 'SOURCE' }),
        'pull',
        false,
        false,
      ],
      ['nobody was reached', failed('CONNECT_FAILED'), 'pull', false, false],
      ['the source refused to push', failed('PERMISSION_DENIED', 'SOURCE'), 'push', false, false],
      [
        'the destination did not let it in',
        failed('PERMISSION_DENIED', 'DESTINATION', 'TRANSFER', { side: 'DESTINATION', httpStatus: 403 }),
        'push',
        true,
        false,
      ],
      [
        'the destination was full',
        failed('DESTINATION_FULL', 'DESTINATION', 'TRANSFER', { side: 'DESTINATION', httpStatus: 507 }),
        'push',
        true,
        true,
      ],
      ['the PUT of a stream was refused', failed('PERMISSION_DENIED'), 'stream', true, false],
      ['the PUT of a stream broke off', failed('CONNECTION_LOST', 'DESTINATION', 'TRANSFER'), 'stream', true, true],
    ] as const) {
      it(`${mode}: ${what}: ${own ? 'yes' : 'no'}`, () => expect(mayBeOwn(outcome, mode, taken)).to.equal(own))
    }
  })

  describe('what lies at the destination', () => {
    const expected = { bytes: 9, checksums: { adler32: '11e60398' } }
    const file = (size: number | undefined, checksums: object): FileStatus => ({ exists: true, size, checksums })
    for (const [what, found, kind] of [
      ['nothing', { exists: false }, 'absent'],
      ['the file', file(9, { adler32: '11e60398' }), 'right'],
      ['the file, in capitals', file(9, { adler32: '11E60398' }), 'right'],
      ['the file, by a storage that tells no size', file(undefined, { adler32: '11e60398' }), 'right'],
      ['another size', file(8, { adler32: '11e60398' }), 'wrong'],
      ['another content', file(9, { adler32: '11e60399' }), 'wrong'],
      ['the right size without a checksum', file(9, {}), 'unproven'],
      [
        'the right size with a checksum of another kind',
        file(9, { md5: '9c677286866aad38f8e9b660f5411814' }),
        'unproven',
      ],
    ] as const) {
      it(`${what}: ${kind}`, () => expect(judge(expected, found).kind).to.equal(kind))
    }

    it('compares every checksum that both know', () => {
      const both = { bytes: 9, checksums: { adler32: '11e60398', md5: '9c677286866aad38f8e9b660f5411814' } }
      const sight = judge(both, file(9, { adler32: '11e60398', md5: '00000000000000000000000000000000' }))
      expect(sight).to.include({ kind: 'wrong', code: 'CHECKSUM_MISMATCH' })
    })

    it('a short adler32 is the same number', () => {
      const expected = { bytes: 1, checksums: { adler32: '00620062' } }
      expect(judge(expected, file(1, { adler32: '620062' })).kind).to.equal('right')
    })

    it('asks for the storage`s kind if the catalogue has it, else for what the catalogue has', () => {
      expect(digestsToAsk({ adler32: 'x', md5: 'y' }, 'md5')).to.deep.equal(['md5', 'adler32'])
      expect(digestsToAsk({ adler32: 'x' }, 'md5')).to.deep.equal(['adler32'])
      expect(digestsToAsk({}, 'md5')).to.deep.equal([])
    })
  })

  describe('how an unseen attempt ended', () => {
    const unproven = (size: number): Sight => ({ kind: 'unproven', size, checksums: {} })
    const part = (size: number, adler32 = '0'): Sight => ({
      kind: 'wrong',
      code: 'SIZE_MISMATCH',
      message: '',
      size,
      checksums: { adler32 },
    })
    for (const [what, first, second, conclusion] of [
      ['gone at the second look', part(1), { kind: 'absent' }, 'absent'],
      ['complete at the second look', part(1), { kind: 'right' }, 'right'],
      ['more bytes', part(1), part(2), 'growing'],
      ['as many bytes with another sum: written in place', part(9, '1'), part(9, '2'), 'growing'],
      ['the same', part(1), part(1), 'stable'],
      ['nothing, twice', { kind: 'absent' }, { kind: 'absent' }, 'absent'],
      ['complete, without a checksum', unproven(9), unproven(9), 'unproven'],
      ['complete at the second look, without a checksum', part(1), unproven(9), 'growing'],
      ['appeared', { kind: 'absent' }, part(1), 'growing'],
    ] as const) {
      it(`${what}: ${conclusion}`, () => expect(concludeSettling(first, second)).to.equal(conclusion))
    }
  })

  describe('times', () => {
    it('a permit ends half a second early, counted from before it was asked for', () => {
      const asked = { monotonic: 1_000, wall: 5_000 }
      const later = (monotonic: number, wall = monotonic) => ({ monotonic: 1_000 + monotonic, wall: 5_000 + wall })
      expect(permitLeft(asked, 10, later(0))).to.equal(9_500)
      expect(permitLeft(asked, 10, later(9_499))).to.equal(1)
      expect(permitLeft(asked, 10, later(10_000))).to.be.below(0)
      // A machine that slept; a time of day that was put back.
      expect(permitLeft(asked, 10, later(1, 300_000))).to.be.below(0)
      expect(permitLeft(asked, 10, later(10_000, -3_600_000))).to.be.below(0)
    })

    it('work stops before the lease ends, counted from before it was asked for', () => {
      expect(stopBy(1_000, 20)).to.equal(18_000)
    })

    it('a token is good while more is left than is needed, or than half its life', () => {
      const token = { token: new Secret('x'), generation: 1, endsAt: 10_000, lifeMs: 10_000 }
      expect(isFresh(token, 300, 4_999)).to.equal(true)
      expect(isFresh(token, 300, 5_000)).to.equal(false)
      expect(isFresh(token, 2, 7_999)).to.equal(true)
      expect(isFresh(token, 2, 8_000)).to.equal(false)
    })

    it('a server that is away is asked less and less often', () => {
      expect([1, 2, 3, 6, 7, 100].map(failures => backoff(failures, 0.999999))).to.deep.equal([
        250, 500, 1_000, 8_000, 10_000, 10_000,
      ])
      expect(backoff(1, 0)).to.equal(125)
    })

    it('a claim waits at the server only when the last one brought less than was asked for', () => {
      expect(nextClaim(5, 3, false)).to.deep.equal({ limit: 5, waitSeconds: 0 })
      expect(nextClaim(5, 3, true)).to.deep.equal({ limit: 5, waitSeconds: 20 })
      expect(nextClaim(0, 5, true)).to.deep.equal({ limit: 0, waitSeconds: 0 })
    })

    it('a claim asks for no more than the contract allows, and for nothing beyond what can be named as held', () => {
      expect(nextClaim(10_000, 0, false)).to.deep.equal({ limit: 1_000, waitSeconds: 0 })
      expect(nextClaim(10_000, 19_990, false)).to.deep.equal({ limit: 10, waitSeconds: 0 })
      expect(nextClaim(10_000, 20_000, false)).to.deep.equal({ limit: 0, waitSeconds: 1 })
    })
  })

  it('what it reports of a failure has no text that the server would refuse', () => {
    const failed = { ...failure('STORAGE_ERROR'), message: `${'x'.repeat(999)}\u{1F4BE}\u0000` }
    expect(transferError.parse(reportedError(failed)).message).to.equal('x'.repeat(999))
  })

  it('what is worth repeating: no answer, a server in trouble, an ended token; not a refusal', () => {
    const url = new URL('https://server.example/')
    const answered = (status: number, code = 'X') => new ApiError(code, '', { status })
    expect(isAway(new HttpFailure('connect', 'POST', url))).to.equal(true)
    expect(isAway(new HttpFailure('aborted', 'POST', url))).to.equal(false)
    for (const status of [401, 429, 500, 503]) expect(isAway(answered(status)), String(status)).to.equal(true)
    for (const status of [400, 403, 404, 409]) expect(isAway(answered(status)), String(status)).to.equal(false)
    expect(isSessionOver(answered(409, 'SESSION_ENDED'))).to.equal(true)
    expect(isSessionOver(answered(409, 'LEASE_LOST'))).to.equal(false)
  })
})
