import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { type Layout, replicaPath } from '../../server/storages/paths.ts'
import { parseDid } from '../../shared/domain/names.ts'
import { PROJECT } from './layers.ts'

describe('the examples of docs/paths.md', () => {
  it('are what the layouts do', async () => {
    const page = await readFile(join(PROJECT, 'docs/paths.md'), 'utf8')
    const rows = page
      .split('\n')
      .filter(line => /^\| `(dataset|identity|hash)` /.test(line))
      .map(line => line.split('|').map(cell => cell.trim().replaceAll('`', '')))
    expect(rows.length).to.be.greaterThan(8)
    for (const [, layout = '', file = '', dataset = '', path = '', top = ''] of rows) {
      const parent = dataset === 'none' ? undefined : parseDid(dataset)
      const found = replicaPath(layout as Layout, parseDid(file), parent)
      expect([`${found.directory}/${found.name}`, found.top], file).to.deep.equal([path, top])
    }
  })
})
