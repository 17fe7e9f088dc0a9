import { expect } from 'chai'
import { listLimits, putLimit } from '../../server/accounts/limit-store.ts'
import { putPermissions } from '../../server/accounts/permission-store.ts'
import { insertAccount } from '../../server/accounts/store.ts'
import { ensureScopes } from '../../server/catalogue/did-store.ts'
import { demandDirectories, demandTops } from '../../server/catalogue/directory-rights.ts'
import { noteScope } from '../../server/catalogue/directory-scope-store.ts'
import { ensureDirectories } from '../../server/catalogue/replica-store.ts'
import { unlockedBytes } from '../../server/catalogue/upload-store.ts'
import type { Rse } from '../../server/storages/directory.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

for (const { name, open } of databases) {
  describe(`whose a directory is, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let rse: Rse
    let bob: number
    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A'] })
      rse = await world.rse('A')
      bob = (await test.db.write(e => insertAccount(e, world.voId, 'bob', 0))) ?? 0
      // `s` and `user.foo` are closed to bob, `open` to nobody. Files of `s` were said to lie in /data/legacy/s.
      await test.db.write(async e => {
        const scopes = await ensureScopes(e, world.voId, ['s', 'user.foo', 'open'])
        const rights = { accountId: world.accountId, may_write: true, may_rule: false, may_manage: true }
        for (const closed of ['s', 'user.foo']) await putPermissions(e, { ...rights, scopeId: scopes.get(closed) ?? 0 })
        const path = '/data/legacy/s'
        const directories = await ensureDirectories(e, rse.id, [{ path, top: path }])
        await noteScope(e, scopes.get('s') ?? 0, [directories.get(path)?.id ?? 0])
      })
    })
    afterEach(() => test.drop())

    const caller = (admin = false) => ({
      issuer: 'i',
      subject: 'bob',
      admin,
      account: { id: bob, name: 'bob', voId: world.voId, vo: 'exp' },
    })
    const codeOf = (promise: Promise<void>): Promise<string> =>
      promise.then(
        () => 'fine',
        (error: { code: string }) => error.code,
      )
    const named = (path: string) => [{ directory: `/data${path}`, field: 'path' }]

    for (const [layout, path, registered, imported, token] of [
      ['dataset', '/s/run1', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN'],
      ['dataset', '/s', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN', 'PATH_TOO_WIDE'],
      ['dataset', '/open', 'fine', 'fine', 'PATH_TOO_WIDE'],
      ['identity', '/open', 'fine', 'fine', 'fine'],
      ['dataset', '/open/run1', 'fine', 'fine', 'fine'],
      ['dataset', '/s2/run1', 'fine', 'fine', 'fine'],
      ['dataset', '/legacy/s', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN'],
      ['dataset', '/legacy/s/a/b', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN'],
      ['dataset', '/legacy', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN'],
      ['dataset', '/legacy/s0', 'fine', 'fine', 'fine'],
      ['dataset', '/legacy/t', 'fine', 'fine', 'fine'],
      ['hash', '/user', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN', 'PATH_TOO_WIDE'],
      ['hash', '/user/foo/13/7f', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN'],
      ['dataset', '/user/foo', 'fine', 'fine', 'fine'],
      ['dataset', '', 'SCOPE_FORBIDDEN', 'SCOPE_FORBIDDEN', 'PATH_TOO_WIDE'],
    ] as const) {
      it(`${path} by the layout ${layout}: ${registered} to register, ${imported} to import, ${token} for a token`, async () => {
        const place = { ...rse, layout }
        const ask = (all: boolean) =>
          codeOf(test.db.write(e => demandDirectories(e, caller(), place, named(path), { all })))
        const tops = (admin: boolean) => codeOf(test.db.write(e => demandTops(e, caller(admin), place, named(path))))
        if (path !== '/user') expect(await ask(false)).to.equal(registered)
        expect(await ask(true)).to.equal(imported)
        expect(await tops(false)).to.equal(token)
        expect(await tops(true), 'an admin').to.equal(token === 'PATH_TOO_WIDE' ? token : 'fine')
      })
    }

    it('limits are listed by their keys, of the account and of all', async () => {
      const { voId, accountId } = world
      const put = (account: number | undefined, expression: string) =>
        test.db.write(e => putLimit(e, { voId, accountId: account, expression, bytes: 1 }, 0))
      await put(accountId, 'b')
      await put(undefined, '*')
      await put(bob, 'a')
      const list = async (account: number | undefined, after = 0, limit = 9) =>
        (await listLimits(test.db.read, { voIds: [voId], accountId: account, after, limit })).map(row => row.expression)
      expect(await list(undefined)).to.deep.equal(['b', '*', 'a'])
      expect(await list(bob)).to.deep.equal(['*', 'a'])
      expect(await list(undefined, 1, 1)).to.deep.equal(['*'])
      expect(await listLimits(test.db.read, { voIds: [], accountId: undefined, after: 0, limit: 9 })).to.deep.equal([])
    })

    it('bytes are an upload’s where no rule of the account has locked them', async () => {
      await world.dataset('d', 2, 'A')
      const fileIds = (await world.rows<{ id: number }>("SELECT id FROM dids WHERE type = 'FILE'")).map(({ id }) => id)
      const all = await world.number("SELECT sum(bytes) AS n FROM dids WHERE type = 'FILE'")
      const upload = { rseId: rse.id, accountId: world.accountId, fileIds }
      expect(await unlockedBytes(test.db.read, upload)).to.equal(all)
      expect(await unlockedBytes(test.db.read, { ...upload, fileIds: [] })).to.equal(0)
      await world.addRule('d', 'A', 1)
      await world.evaluate()
      expect(await unlockedBytes(test.db.read, upload)).to.equal(0)
      expect(await unlockedBytes(test.db.read, { ...upload, accountId: bob })).to.equal(all)
    })
  })
}
