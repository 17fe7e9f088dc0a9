import { expect } from 'chai'
import { groupDirectories } from '../../server/catalogue/directory-groups.ts'
import { MAX_DIRECTORIES } from '../../server/tokens/scopes.ts'

describe('directories that share a token', () => {
  const at = (rse_id: number, top: string) => ({ rse_id, top })
  const cases: [string, { rse_id: number; top: string }[], { rseId: number; tops: string[] }[]][] = [
    ['none', [], []],
    ['a dataset in its directory', [at(1, '/d'), at(1, '/d'), at(1, '/d')], [{ rseId: 1, tops: ['/d'] }]],
    ['in order, whatever the files’ order', [at(1, '/c'), at(1, '/a')], [{ rseId: 1, tops: ['/a', '/c'] }]],
    [
      'never two storages in one',
      [at(1, '/d'), at(2, '/d')],
      [
        { rseId: 1, tops: ['/d'] },
        { rseId: 2, tops: ['/d'] },
      ],
    ],
  ]
  for (const [name, places, groups] of cases) {
    it(name, () => expect(groupDirectories(places)).to.deep.equal(groups))
  }

  it('are so many that their scopes fit into a header', () => {
    const places = Array.from({ length: 1000 }, (_, i) => at(1, `/hash/${i}`))
    const groups = groupDirectories(places)
    expect(groups).to.have.length(Math.ceil(1000 / MAX_DIRECTORIES))
    expect(groups.every(({ tops }) => tops.length <= MAX_DIRECTORIES)).to.equal(true)
    expect(groups.flatMap(({ tops }) => tops)).to.have.members(places.map(({ top }) => top))
  })
})
