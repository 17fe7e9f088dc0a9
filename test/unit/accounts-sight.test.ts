import { expect } from 'chai'
import type { Caller, WorkerRights } from '../../server/accounts/caller.ts'
import { idleConfinements, servesWithin } from '../../server/accounts/pools.ts'
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
  const [a, b, c] = ['SITE-A', 'SITE-B', 'SITE-C']
  const cases: [string, Omit<WorkerRights, 'client'>, Sight, boolean][] = [
    ['all VOs everywhere', {}, { voIds: [7] }, true],
    ['the VO', { voIds: [6, 7] }, { voIds: [7] }, true],
    ['another VO', { voIds: [6] }, { voIds: [7] }, false],
    ['a storage of the VO', { rses: ['SITE-B', 'SITE-C'] }, { voIds: [7] }, true],
    ['storages of other VOs', { rses: ['SITE-C'] }, { voIds: [7] }, false],
    ['the VO at storages of others', { voIds: [7], rses: ['SITE-C'] }, { voIds: [7] }, false],
    ['another VO at this storage', { voIds: [6], rses: ['SITE-A'] }, { voIds: [7] }, false],
    ['a link of the VO', { links: [{ source: a, destination: b }] }, { voIds: [7] }, true],
    ['links to storages of other VOs', { links: [{ source: a, destination: c }] }, { voIds: [7] }, false],
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

describe('what pools are confined to in vain', () => {
  const link = { source: 'SITE-A', destination: 'SITE-B' }
  const back = { source: 'SITE-B', destination: 'SITE-A' }
  const cases: [string, Omit<WorkerRights, 'client'>[], string[]][] = [
    ['nothing without pools', [], []],
    ['nothing where none is confined', [{}], []],
    ['nothing that is there', [{ rses: ['SITE-A'] }, { links: [link] }], []],
    [
      'storages that are not',
      [{ rses: ['SITE-A', 'SITE-X'] }, {}],
      ['is confined to storages that are not there: SITE-X'],
    ],
    [
      'links without a pool',
      [{ rses: ['SITE-A'] }],
      ['no pool may serve these links, and nothing is copied on them: SITE-A -> SITE-B'],
    ],
    [
      'links that are not',
      [{ links: [link, back] }, {}],
      ['is confined to links that are not there: SITE-B -> SITE-A'],
    ],
    [
      'imports, where each pool is confined to copies',
      [{ activities: ['x'] }, { links: [link] }],
      ['none takes imports'],
    ],
  ]
  for (const [what, rights, sentences] of cases) {
    it(what, () => {
      const pools = rights.map(each => ({ issuer: 'i', client, subject: client, rights: { client, ...each } }))
      const found = idleConfinements(pools, ['SITE-A', 'SITE-B'], [link])
      expect(found).to.have.length(sentences.length)
      for (const [i, sentence] of sentences.entries()) expect(found[i]).to.contain(sentence)
    })
  }
})
