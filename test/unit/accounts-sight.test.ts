import { expect } from 'chai'
import type { Caller } from '../../server/accounts/caller.ts'
import { servesWithin } from '../../server/accounts/pools.ts'
import { type Sight, sees, sightOf } from '../../server/accounts/sight.ts'

const account = { id: 1, name: 'alice', voId: 7, vo: 'exp' }
const client = 'pool'

describe('whose data a caller sees', () => {
  const cases: [string, Partial<Caller>, readonly number[] | undefined][] = [
    ['an admin: everybody’s', { admin: true }, undefined],
    ['an admin with an account: everybody’s', { admin: true, account }, undefined],
    ['an admin that is a worker of one VO: everybody’s', { admin: true, worker: { client, voIds: [8] } }, undefined],
    ['an account: its VO’s', { account }, [7]],
    ['a worker with an account: the account’s VO’s', { account, worker: { client } }, [7]],
    ['a worker of another VO with an account: the account’s VO’s', { account, worker: { client, voIds: [8] } }, [7]],
    ['a worker of some VOs: theirs', { worker: { client, voIds: [8, 9], rses: ['SITE-A'] } }, [8, 9]],
    ['a worker of all VOs: everybody’s', { worker: { client, rses: ['SITE-A'] } }, undefined],
    ['somebody else: nobody’s', {}, []],
  ]
  for (const [who, caller, voIds] of cases) {
    it(who, () => {
      const sight = sightOf({ issuer: 'i', subject: 's', admin: false, ...caller })
      expect(sight.voIds).to.deep.equal(voIds)
      for (const voId of [7, 8, 9]) expect(sees(sight, voId)).to.equal(voIds?.includes(voId) ?? true)
    })
  }
})

describe('the worker pools that serve somebody', () => {
  const rses = [{ name: 'SITE-A' }, { name: 'SITE-B' }]
  const cases: [string, { voIds?: number[]; rses?: string[] }, Sight, boolean][] = [
    ['all VOs everywhere', {}, { voIds: [7] }, true],
    ['the VO', { voIds: [6, 7] }, { voIds: [7] }, true],
    ['another VO', { voIds: [6] }, { voIds: [7] }, false],
    ['a storage of the VO', { rses: ['SITE-B', 'SITE-C'] }, { voIds: [7] }, true],
    ['storages of other VOs', { rses: ['SITE-C'] }, { voIds: [7] }, false],
    ['the VO at storages of others', { voIds: [7], rses: ['SITE-C'] }, { voIds: [7] }, false],
    ['another VO at this storage', { voIds: [6], rses: ['SITE-A'] }, { voIds: [7] }, false],
    ['one VO, for who sees all', { voIds: [6] }, {}, true],
  ]
  for (const [what, rights, sight, expected] of cases) {
    it(`${expected ? 'are' : 'are not'} those that serve ${what}`, () => {
      expect(
        servesWithin({ issuer: 'i', client, subject: client, rights: { client, ...rights } }, sight, rses),
      ).to.equal(expected)
    })
  }
})
