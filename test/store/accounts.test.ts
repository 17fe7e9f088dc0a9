import { expect } from 'chai'
import { handOut, listPoolAccounts, listPools, putPool, release } from '../../server/accounts/account-pool-store.ts'
import { authenticator } from '../../server/accounts/authenticate.ts'
import { accountBy } from '../../server/accounts/mapped.ts'
import { deleteMapping, insertMapping, listMappings, MOST_MAPPINGS } from '../../server/accounts/mapping-store.ts'
import {
  deleteAllPermissions,
  deletePermissions,
  listPermissionsOf,
  putPermissions,
  scopesRefused,
} from '../../server/accounts/permission-store.ts'
import { accountOf, ensureVo, insertAccount, type MappedTo, mapIdentity } from '../../server/accounts/store.ts'
import { ensureScopes } from '../../server/catalogue/did-store.ts'
import { Kept } from '../../server/kept.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { ManualClock } from '../unit/http-manual-clock.ts'
import { databases, type TestDatabase } from './databases.ts'

const ISSUER = 'https://iam.example.org/'

for (const { name, open } of databases) {
  describe(`accounts on ${name}`, () => {
    let test: TestDatabase
    let voId: number
    beforeEach(async () => {
      test = await open()
      voId = await test.db.write(e => ensureVo(e, 'exp'))
    })
    afterEach(() => test.drop())

    const add = async (account: string, vo = voId): Promise<number> =>
      (await test.db.write(e => insertAccount(e, vo, account, 0))) ?? 0
    const person = (subject: string) => ({ issuer: ISSUER, subject })
    const inPool: MappedTo = {
      get voId() {
        return voId
      },
      target: 'pool',
      name: 'exp',
    }

    describe('pools', () => {
      const come = (subject: string) => test.db.write(e => handOut(e, { voId, name: 'exp' }, person(subject), 7))
      const accountFor = async (subject: string) => (await accountOf(test.db.read, person(subject), inPool))?.name
      const resize = (size: number) => test.db.write(e => putPool(e, { voId, name: 'exp', size }, 0))
      const count = async () => {
        const [pool] = await listPools(test.db.read)
        return pool && { size: pool.size, held: pool.held, released: pool.released }
      }

      it('give each person an account, the same for good', async () => {
        await resize(10)
        expect(await accountFor('ann')).to.equal(undefined)
        expect([await come('ann'), await come('ben'), await come('ann')]).to.deep.equal(Array(3).fill('handed out'))
        expect([await accountFor('ann'), await accountFor('ben')]).to.deep.equal(['exp001', 'exp002'])
        expect(
          await accountOf(test.db.read, { issuer: 'https://other.example.org/', subject: 'ann' }, inPool),
        ).to.equal(undefined)
        expect(await accountOf(test.db.read, person('ann')), 'without a mapping').to.equal(undefined)
        expect(await count()).to.deep.equal({ size: 10, held: 2, released: 0 })
      })

      it('give one to one person who comes many times at once, and different ones to many', async () => {
        await resize(100)
        const subjects = Array.from({ length: 40 }, (_, i) => `person-${i % 20}`)
        expect(new Set(await Promise.all(subjects.map(come)))).to.deep.equal(new Set(['handed out']))
        const rows = await listPoolAccounts(test.db.read, { poolId: 1, after: 0, limit: 100 })
        expect(rows.map(({ number }) => number)).to.deep.equal(Array.from({ length: 20 }, (_, i) => i + 1))
        expect(new Set(rows.map(({ subject }) => subject)).size).to.equal(20)
      })

      it('hold no more than their size, whoever comes at once', async () => {
        await resize(5)
        const outcomes = await Promise.all(Array.from({ length: 20 }, (_, i) => come(`person-${i}`)))
        expect(outcomes.filter(outcome => outcome === 'handed out').length).to.equal(5)
        expect(outcomes.filter(outcome => outcome === 'exhausted').length).to.equal(15)
        expect(await count()).to.deep.equal({ size: 5, held: 5, released: 0 })
        await resize(2)
        const holder = outcomes.indexOf('handed out')
        expect(await come(`person-${holder}`), 'who has one keeps it').to.equal('handed out')
      })

      it('that are full, or not there, keep no writer busy', async () => {
        await resize(1)
        await come('ann')
        const write = () => Promise.reject(new Error('it writes'))
        const context = { db: { ...test.db, read: test.db.read, write }, clock: new ManualClock(), log: silentLogger }
        const mapping = { id: 1, issuer: ISSUER, claim: 'sub', pattern: '*', voId, vo: 'exp', target: 'pool' } as const
        const ask = (subject: string, pool: string) =>
          accountBy(context, person(subject), { mapping: { ...mapping, name: pool }, name: pool })
        expect((await ask('ann', 'exp'))?.name).to.equal('exp001')
        expect(await ask('ben', 'other')).to.equal(undefined)
        expect(await ask('ben', 'exp').catch((error: { code: string }) => error.code)).to.equal(
          'ACCOUNT_POOL_EXHAUSTED',
        )
      })

      it('never give a released account to somebody else, and the same to who comes back', async () => {
        await resize(1)
        await come('ann')
        expect(await test.db.write(e => release(e, voId, 'exp001', 9))).to.equal(true)
        expect(await accountFor('ann')).to.equal(undefined)
        expect([await come('ben'), await accountFor('ben')]).to.deep.equal(['handed out', 'exp002'])
        expect(await come('ann'), 'the pool is full').to.equal('exhausted')
        await resize(2)
        expect([await come('ann'), await accountFor('ann')]).to.deep.equal(['handed out', 'exp001'])
        expect(await test.db.write(e => release(e, voId, 'nobody', 9))).to.equal(false)
      })

      it('pass over names that an admin has given, also hundreds', async () => {
        await resize(3)
        for (const number of ['001', '003']) await add(`exp${number}`)
        for (const subject of ['ann', 'ben']) await come(subject)
        expect([await accountFor('ann'), await accountFor('ben')]).to.deep.equal(['exp002', 'exp004'])
        await test.db.write(async e => {
          for (let n = 5; n <= 1001; n++) await insertAccount(e, voId, `exp${String(n).padStart(3, '0')}`, 0)
        })
        await come('cy')
        expect(await accountFor('cy')).to.equal('exp1002')
      })

      it('of another VO are others', async () => {
        await resize(1)
        const other = await test.db.write(e => ensureVo(e, 'other'))
        expect(await test.db.write(e => handOut(e, { voId: other, name: 'exp' }, person('ann'), 0))).to.equal('none')
        await test.db.write(e => putPool(e, { voId: other, name: 'exp', size: 1 }, 0))
        await test.db.write(e => handOut(e, { voId: other, name: 'exp' }, person('ann'), 0))
        expect(await accountFor('ann')).to.equal(undefined)
        await come('ann')
        expect(await accountOf(test.db.read, person('ann'), inPool)).to.include({ name: 'exp001', vo: 'exp' })
      })
    })

    describe('of an identity', () => {
      it('are its own before a mapping’s, and no name leads to an account of a pool', async () => {
        const alice = await add('alice')
        await add('production')
        await test.db.write(e => putPool(e, { voId, name: 'exp', size: 9 }, 0))
        await test.db.write(e => handOut(e, { voId, name: 'exp' }, person('ann'), 0))
        const to = async (target: 'account' | 'pool', account: string) =>
          (await accountOf(test.db.read, person('ann'), { voId, target, name: account }))?.name
        expect([await to('account', 'production'), await to('account', 'nobody')]).to.deep.equal([
          'production',
          undefined,
        ])
        expect(await to('account', 'exp001')).to.equal(undefined)
        expect(await to('pool', 'exp')).to.equal('exp001')
        await test.db.write(e => mapIdentity(e, person('ann'), alice, false))
        expect([await to('account', 'production'), await to('pool', 'exp')]).to.deep.equal(['alice', 'alice'])
      })
    })

    it('cost a request one statement, with a mapping or without, and the list one in two seconds', async () => {
      await add('production')
      await test.db.write(e => putPool(e, { voId, name: 'exp', size: 9 }, 0))
      for (const [pattern, target, to] of [
        ['/exp/production', 'account', 'production'],
        ['/exp/**', 'pool', 'exp'],
      ] as const) {
        const mapping = { issuer: ISSUER, claim: 'group' as const, pattern, voId, target, name: to }
        await test.db.write(e => insertMapping(e, mapping, undefined, 0))
      }
      let statements = 0
      const read = new Proxy(test.db.read, {
        get(target, property) {
          if (property === 'raw') statements += 1
          return Reflect.get(target, property)
        },
      })
      const clock = new ManualClock()
      const mappings = new Kept(clock, () => listMappings(read))
      const verifier = {
        async verify(subject = '') {
          const groups = subject === 'stranger' ? [] : [subject === 'ann' ? '/exp/x' : '/exp/production']
          return { ...person(subject), clientId: undefined, groups, entitlements: [], scopes: [], expiresAt: 1 }
        },
      }
      const context = { db: { ...test.db, read }, clock, log: silentLogger }
      const authenticate = authenticator(context, verifier, { admins: [] }, [], mappings)
      const cost = async (subject: string) => {
        statements = 0
        const { account } = await authenticate(subject)
        return [account?.name, statements]
      }
      expect(await cost('bob'), 'the list too').to.deep.equal(['production', 2])
      expect(await cost('bob')).to.deep.equal(['production', 1])
      expect(await cost('stranger')).to.deep.equal([undefined, 1])
      expect((await cost('ann'))[0], 'handed out').to.equal('exp001')
      expect(await cost('ann')).to.deep.equal(['exp001', 1])
      clock.advance(2_001)
      expect(await cost('ann')).to.deep.equal(['exp001', 2])
    })

    describe('mappings', () => {
      const insert = (pattern: string, position?: number) =>
        test.db.write(e =>
          insertMapping(
            e,
            { issuer: ISSUER, claim: 'group', pattern, voId, target: 'account', name: 'a' },
            position,
            0,
          ),
        )
      const patterns = async () => (await listMappings(test.db.read)).map(({ pattern }) => pattern)

      it('keep the order that they are given', async () => {
        for (const pattern of ['b', 'd']) await insert(pattern)
        await insert('a', 1)
        await insert('c', 3)
        await insert('e', 1000)
        expect(await patterns()).to.deep.equal(['a', 'b', 'c', 'd', 'e'])
        const [first] = await listMappings(test.db.read)
        expect(await test.db.write(e => deleteMapping(e, first?.id ?? 0))).to.equal(true)
        expect(await test.db.write(e => deleteMapping(e, first?.id ?? 0))).to.equal(false)
        await insert('x', 2)
        expect(await patterns()).to.deep.equal(['b', 'x', 'c', 'd', 'e'])
      })

      it('are all there when many come at once, each before what was there', async () => {
        await insert('last')
        await Promise.all(Array.from({ length: 20 }, (_, i) => insert(`p${i}`, 1)))
        const found = await patterns()
        expect([found.length, found.at(-1)]).to.deep.equal([21, 'last'])
      })

      it('are not without end', async () => {
        for (let i = 0; i < MOST_MAPPINGS; i++) expect(await insert(`p${i}`)).to.be.a('number')
        expect(await insert('one more')).to.equal(undefined)
      })
    })

    describe('permissions', () => {
      let scopes: Map<string, number>
      let alice: number
      let bob: number
      beforeEach(async () => {
        scopes = await test.db.write(e => ensureScopes(e, voId, ['s', 'open']))
        ;[alice, bob] = [await add('alice'), await add('bob')]
      })
      const scope = (of: string) => scopes.get(of) ?? 0
      const allow = (accountId: number, of = 's', what: 'may_write' | 'may_rule' | 'may_manage' = 'may_write') =>
        test.db.write(e =>
          putPermissions(e, {
            scopeId: scope(of),
            accountId,
            ...{ may_write: false, may_rule: false, may_manage: false, [what]: true },
          }),
        )
      const refused = async (id: number, permission: 'write' | 'rule' | 'manage', names = ['s', 'open', 'nowhere']) =>
        [...(await scopesRefused(test.db.read, { id, voId }, permission, names))].sort()

      it('close a scope to whom they do not name; what is open nobody manages', async () => {
        expect(await refused(bob, 'write')).to.deep.equal([])
        expect(await refused(bob, 'manage')).to.deep.equal(['open', 's'])
        await allow(alice)
        expect(await refused(alice, 'write')).to.deep.equal([])
        expect([await refused(alice, 'rule'), await refused(alice, 'manage', ['s'])]).to.deep.equal([['s'], ['s']])
        expect([await refused(bob, 'write'), await refused(bob, 'rule')]).to.deep.equal([['s'], ['s']])
        await allow(bob, 's', 'may_manage')
        for (const permission of ['write', 'rule', 'manage'] as const)
          expect(await refused(bob, permission, ['s']), permission).to.deep.equal([])
        await allow(bob, 's', 'may_rule')
        expect([await refused(bob, 'rule'), await refused(bob, 'write')], 'they are set').to.deep.equal([[], ['s']])
      })

      it('of another VO’s scopes are not asked', async () => {
        const other = await test.db.write(e => ensureVo(e, 'other'))
        const [foreign] = (await test.db.write(e => ensureScopes(e, other, ['theirs']))).values()
        const carol = await add('carol', other)
        await test.db.write(e =>
          putPermissions(e, {
            scopeId: foreign ?? 0,
            accountId: carol,
            may_write: true,
            may_rule: true,
            may_manage: true,
          }),
        )
        expect(await refused(alice, 'write', ['theirs'])).to.deep.equal([])
      })

      it('are not taken from the last, also by two at once, unless all are', async () => {
        await allow(alice)
        await allow(bob)
        const take = (id: number) => test.db.write(e => deletePermissions(e, scope('s'), id))
        expect((await Promise.all([take(alice), take(bob)])).sort()).to.deep.equal(['last', 'taken'])
        const page = { scopeId: scope('s'), after: '', limit: 10 }
        const [left, ...others] = await listPermissionsOf(test.db.read, page)
        expect(others).to.deep.equal([])
        expect(await take(left?.account === 'alice' ? bob : alice)).to.equal('none')
        await test.db.write(e => deleteAllPermissions(e, scope('s')))
        expect(await listPermissionsOf(test.db.read, page)).to.deep.equal([])
        expect(await refused(bob, 'rule')).to.deep.equal([])
      })
    })
  })
}
