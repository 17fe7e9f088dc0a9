import { expect } from 'chai'
import { Pages } from '../../server/rules/guard.ts'

describe('pages of rules', () => {
  it('go from the first to the last, and from the first again', async () => {
    const all = [1, 2, 3, 4, 5, 6]
    const pages = new Pages<number>(2, async (last = 0, limit) => all.filter(id => id > last).slice(0, limit))
    const seen = []
    for (let i = 0; i < 5; i += 1) seen.push(await pages.next())
    expect(seen).to.deep.equal([
      { page: [1, 2], more: true },
      { page: [3, 4], more: true },
      { page: [5, 6], more: true },
      { page: [], more: false },
      { page: [1, 2], more: true },
    ])
  })
})
