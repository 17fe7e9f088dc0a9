import { expect } from 'chai'
import fc from 'fast-check'
import {
  type Layout,
  replicaPath,
  replicaUrl,
  scopesAround,
  scopesInside,
  topWithin,
} from '../../server/storages/paths.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { checkName, type Did, formatDid, parseDid } from '../../shared/domain/names.ts'

/** [layout, file, dataset, top, directory below top, name] */
const TABLE: [Layout, string, string | undefined, string, string, string][] = [
  ['dataset', 'foo:bar', 'foo:ds', '/foo/ds', '', 'bar'],
  ['dataset', 'foo:run/1/bar', 'foo:ds', '/foo/ds', '/run/1', 'bar'],
  ['dataset', 'cms:/store/x.root', 'cms:/A/B/RAW', '/cms/~A~B~RAW', '/store', 'x.root'],
  ['dataset', 'foo:ds/raw/bar', 'foo:ds', '/foo/ds', '/raw', 'bar'],
  ['dataset', 'foo:dsx/bar', 'foo:ds', '/foo/ds', '/dsx', 'bar'],
  ['dataset', 'raw:ds/bar', 'foo:ds', '/foo/ds', '/~raw/ds', 'bar'],
  ['dataset', 'raw:run/bar', 'foo:ds', '/foo/ds', '/~raw/run', 'bar'],
  ['dataset', 'foo:run/bar', undefined, '/foo/~', '/run', 'bar'],
  ['identity', 'foo:bar', 'foo:ds', '/foo', '', 'bar'],
  ['identity', 'cms:/store/data/x.root', undefined, '/cms/store/data', '', 'x.root'],
  // facts/rules.md, "Paths"
  ['hash', 'foo:bar', undefined, '/foo/4e/99', '', 'bar'],
  ['hash', 'user.foo:bar', 'foo:ds', '/user/foo/13/7f', '', 'bar'],
]

const segment = fc
  .string({ unit: fc.constantFrom(...'ab0.-_'), minLength: 1, maxLength: 3 })
  .filter(text => checkName('did', text) === undefined)
const didName = fc
  .tuple(fc.constantFrom('', '/'), fc.array(segment, { minLength: 1, maxLength: 3 }))
  .map(([slash, segments]) => slash + segments.join('/'))
const did: fc.Arbitrary<Did> = fc.record({ scope: fc.constantFrom('a', 'b', 'a.b'), name: didName })

describe('replica paths', () => {
  for (const [layout, file, dataset, top, below, name] of TABLE) {
    it(`${layout}: ${file} of ${dataset} -> ${top}${below}/${name}`, () => {
      const path = replicaPath(layout, parseDid(file), dataset === undefined ? undefined : parseDid(dataset))
      expect(path).to.deep.equal({ top, directory: top + below, name })
    })
  }

  it('dataset: no two files share a path, but for a leading slash or the name of their dataset before the name', () => {
    const placed = fc.tuple(did, fc.option(did, { nil: undefined }))
    const identity = ([file, dataset]: [Did, Did | undefined]): string => {
      const within = dataset?.scope === file.scope && file.name.startsWith(`${dataset.name}/`)
      const name = within ? file.name.slice(dataset.name.length + 1) : file.name
      return [file.scope, name.replace(/^\//, ''), dataset === undefined ? '' : formatDid(dataset)].join('|')
    }
    fc.assert(
      fc.property(placed, placed, (one, other) => {
        expect(written(one) === written(other)).to.equal(identity(one) === identity(other))
      }),
      { numRuns: 3000 },
    )
    const dataset = parseDid('foo:ds')
    expect(written([parseDid('foo:/bar'), dataset])).to.equal(written([parseDid('foo:bar'), dataset]))
  })

  it("dataset: no dataset's top contains another's, and every file stands below the top of its dataset", () => {
    fc.assert(
      fc.property(did, did, did, (file, one, other) => {
        const path = replicaPath('dataset', file, one)
        expect(`${path.directory}/`.startsWith(`${path.top}/`)).to.equal(true)
        fc.pre(formatDid(one) !== formatDid(other))
        expect(`${replicaPath('dataset', file, other).top}/`.startsWith(`${path.top}/`)).to.equal(false)
        expect(`${replicaPath('dataset', file).top}/`.startsWith(`${path.top}/`)).to.equal(false)
      }),
      { numRuns: 2000 },
    )
  })
})

const written = ([file, dataset]: [Did, Did | undefined]): string => {
  const { directory, name } = replicaPath('dataset', file, dataset)
  return `${directory}/${name}`
}

describe('the top of an imported directory', () => {
  const table: [prefix: string, imported: string, directory: string, top: string][] = [
    ['/data/exp', '/data/exp/s/run1', '/data/exp/s/run1/raw', '/data/exp/s/run1'],
    ['/data/exp', '/data/exp/s/run1/raw', '/data/exp/s/run1/raw', '/data/exp/s/run1/raw'],
    ['/data/exp', '/data/exp', '/data/exp/s/run1/raw', '/data/exp/s/run1'],
    ['/data/exp', '/data/exp', '/data/exp/s', '/data/exp/s'],
    ['/data/exp', '/data/exp/s', '/data/exp/s/run2', '/data/exp/s/run2'],
    ['/data/exp', '/data/exp/s', '/data/exp/s', '/data/exp/s'],
    ['/data/exp', '/data/exp', '/data/exp', '/data/exp'],
  ]
  for (const [prefix, imported, directory, top] of table) {
    it(`${directory} of ${imported} -> ${top}`, () => {
      expect(topWithin(prefix, imported, directory)).to.equal(top)
    })
  }
})

describe('whose a directory is', () => {
  const around: [layout: Layout, directory: string, scopes: string[]][] = [
    ['dataset', '', []],
    ['dataset', '/exp/run1/raw', ['exp']],
    ['identity', '/exp/run1/raw', ['exp']],
    ['hash', '/exp/4e/99', ['exp']],
    ['hash', '/user/foo/13', ['user', 'user.foo', 'user.foo.13']],
    ['dataset', '/user/foo/13', ['user']],
  ]
  for (const [layout, below, scopes] of around) {
    it(`${below} below the prefix may be ${scopes.join(', ') || 'nobody’s'} by the layout ${layout}`, () => {
      expect(scopesAround({ prefix: '/data', layout }, `/data${below}`)).to.deep.equal(scopes)
    })
  }

  const inside: [layout: Layout, directory: string, within: string[], without: string[]][] = [
    ['dataset', '', ['exp', 'user.foo'], []],
    ['identity', '', ['exp', 'user.foo'], []],
    ['dataset', '/exp', ['exp'], ['exp2', 'ex', 'exp.a']],
    ['dataset', '/exp/run1', [], ['exp', 'exp.run1']],
    ['identity', '/exp', [], ['exp']],
    ['hash', '/exp', ['exp'], ['exp.4e']],
    ['hash', '/exp/4e', [], ['exp', 'exp.4e']],
    ['hash', '/user', ['user', 'user.foo'], ['user2', 'user-a']],
    ['hash', '/user/foo', ['user.foo', 'user.foo.a'], ['user', 'user.fo', 'user.foo2']],
  ]
  for (const [layout, below, within, without] of inside) {
    it(`${below} below the prefix holds all of ${within.join(', ') || 'nobody'} by the layout ${layout}`, () => {
      const ranges = scopesInside({ prefix: '/data', layout }, `/data${below}`)
      const holds = (name: string): boolean => ranges.some(({ low, high }) => name >= low && name < high)
      expect(within.filter(name => !holds(name))).to.deep.equal([])
      expect(without.filter(holds)).to.deep.equal([])
    })
  }
})

describe('replica URLs', () => {
  const urls: [protocolUrl: string, directory: string, name: string, url: string][] = [
    ['https://h:1094/exp', '/foo/~A~B', 'bar', 'https://h:1094/exp/foo/~A~B/bar'],
    ['https://h:1094/exp/', 'foo', 'bar', 'https://h:1094/exp/foo/bar'],
    ['https://h/exp', '', 'bar', 'https://h/exp/bar'],
    ['https://h/exp', '/a b/c#d', '50%?\u00e9', 'https://h/exp/a%20b/c%23d/50%25%3F%C3%A9'],
  ]
  for (const [protocolUrl, directory, name, url] of urls) {
    it(url, () => expect(replicaUrl(protocolUrl, directory, name)).to.equal(url))
  }

  for (const [directory, name] of [
    ['/a/../b', 'c'],
    ['/a/./b', 'c'],
    ['/a//b', 'c'],
    ['/a/', 'c'],
    ['/a', '..'],
    ['/a', ''],
  ] as const) {
    it(`refuses ${directory} + ${JSON.stringify(name)}`, () => {
      expect(() => replicaUrl('https://h/exp', directory, name))
        .to.throw(WaybillError)
        .with.property('code', 'PATH_INVALID')
    })
  }
})
