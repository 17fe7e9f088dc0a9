import { expect } from 'chai'
import { systemClock } from '../../shared/runtime/clock.ts'
import { OwnSpace } from '../../shared/storage/list-space.ts'
import { type Answered, MultistatusReader } from '../../shared/storage/multistatus.ts'

// XRootD 5.5.3, PROPFIND depth 1 [seen]; hrefs are neither percent-encoded nor escaped.
const XROOTD = `<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns1="http://apache.org/dav/props/" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/" xmlns:lp3="LCGDM:">
<D:href>/exp/</D:href>
<D:propstat>
<D:prop>
<lp1:getcontentlength>4096</lp1:getcontentlength>
<lp1:getlastmodified>Sun, 22 Nov 2026 21:35:08 GMT</lp1:getlastmodified>
<lp1:resourcetype><D:collection/></lp1:resourcetype>
<lp1:iscollection>1</lp1:iscollection>
<lp1:executable>T</lp1:executable>
<lp1:iscollection>1</lp1:iscollection>
</D:prop>
<D:status>HTTP/1.1 200 OK</D:status>
</D:propstat>
</D:response>
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/" xmlns:lp3="LCGDM:">
<D:href>/exp/big odd#+%.x</D:href>
<D:propstat>
<D:prop>
<lp1:getcontentlength>3000000</lp1:getcontentlength>
<lp1:iscollection>0</lp1:iscollection>
<lp1:executable>F</lp1:executable>
</D:prop>
<D:status>HTTP/1.1 200 OK</D:status>
</D:propstat>
</D:response>
</D:multistatus>
`
const DCACHE = `<?xml version="1.0" encoding="utf-8" ?><d:multistatus xmlns:cs="http://calendarserver.org/ns/" xmlns:d="DAV:"><d:response><d:href>https://se.example.org:2880/vo/a%20b%25/</d:href><d:propstat><d:prop><d:getcontentlength></d:getcontentlength><d:resourcetype><d:collection/></d:resourcetype></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response><d:response><d:href>/vo/f&amp;g%2B</d:href><d:propstat><d:prop><d:getcontentlength>12</d:getcontentlength><d:resourcetype/></d:prop></d:propstat></d:response></d:multistatus>`
const DEFAULT_NAMESPACE = `<multistatus xmlns="DAV:"><!-- <response><href>/no</href></response> --><response><href><![CDATA[/a/b]]></href><propstat><prop><resourcetype></resourcetype><getcontentlength>7</getcontentlength></prop></propstat></response></multistatus>`

/** In pieces it is read alike, unless it is far too long. */
function parseMultistatus(xml: string, rawPaths: boolean): Answered[] {
  const sizes = xml.length > 100_000 ? [xml.length, 65_536] : [Math.max(1, xml.length), 1, 7, 1_000]
  const [whole, ...inPieces] = sizes.map(size => {
    const reader = new MultistatusReader(new OwnSpace())
    for (let at = 0; at < xml.length && reader.push(xml.slice(at, at + size)); ) at += size
    return reader.entries(rawPaths || reader.looksRaw)
  })
  for (const found of inPieces) expect(found).to.deep.equal(whole)
  return whole ?? []
}

describe('PROPFIND answers', () => {
  it('of XRootD 5, with paths as they are', () => {
    expect(parseMultistatus(XROOTD, false)).to.deep.equal([
      { path: '/exp', directory: true, size: undefined },
      { path: '/exp/big odd#+%.x', directory: false, size: 3_000_000 },
    ])
  })

  it('with encoded hrefs, with or without the host', () => {
    expect(parseMultistatus(DCACHE, false)).to.deep.equal([
      { path: '/vo/a b%', directory: true, size: undefined },
      { path: '/vo/f&g+', directory: false, size: 12 },
    ])
  })

  it('that look encoded, but are not', () => {
    const xml = '<a:response><a:href>//x//100%25</a:href></a:response>'
    expect(parseMultistatus(xml, true).map(({ path }) => path)).to.deep.equal(['/x/100%25'])
    expect(parseMultistatus(xml, false).map(({ path }) => path)).to.deep.equal(['/x/100%'])
  })

  it('with a default namespace, comments and CDATA', () => {
    expect(parseMultistatus(DEFAULT_NAMESPACE, false)).to.deep.equal([{ path: '/a/b', directory: false, size: 7 }])
  })

  it('with one name whose bytes are no UTF-8 keep the others as they are', () => {
    const xml = '<response><href>/a/100%25</href></response><response><href>/a/caf%E9</href></response>'
    expect(parseMultistatus(xml, false).map(({ path }) => path)).to.deep.equal(['/a/100%', '/a/caf\ufffd'])
  })

  it('give what is no path as it is: somebody has to see it', () => {
    const xml = '<response><href>relative</href></response><response></response>'
    expect(parseMultistatus(xml, false).map(({ path }) => path)).to.deep.equal(['relative', ''])
  })

  it('tell the status of an entry, and not that of its properties', () => {
    const properties = (status: string) => `<propstat><prop/><status>HTTP/1.1 ${status}</status></propstat>`
    const xml = `<response><href>/a</href>${properties('404 Not Found')}</response><response><href>/b</href><status>HTTP/1.1 403 Forbidden</status></response>`
    expect(parseMultistatus(xml, false).map(({ path, status }) => [path, status])).to.deep.equal([
      ['/a', undefined],
      ['/b', 403],
    ])
  })

  it('that are nonsense give nothing', () => {
    for (const xml of ['', 'not xml', '<response><href>/x</href>', '<<>>&#x110000;']) {
      expect(parseMultistatus(xml, false), xml).to.deep.equal([])
    }
  })

  for (const piece of [
    '<![CDATA[',
    '<!--',
    '<',
    '<response ',
    '<a>',
    ']]>',
    '<![CDATA[]]>',
    '<response><href>&',
    '/',
  ]) {
    it(`of nothing but ${piece} are read as fast as any`, () => {
      const xml = piece.repeat(Math.ceil(8_000_000 / piece.length))
      const started = systemClock.monotonic()
      parseMultistatus(xml, false)
      expect(systemClock.monotonic() - started).to.be.below(5_000)
    })
  }

  it('with something that is never closed end there', () => {
    const before = '<response><href>/a</href></response>'
    for (const open of ['<![CDATA[', '<!--', '<response']) {
      const xml = `${before}${open}<response><href>/b</href></response`
      expect(
        parseMultistatus(xml, false).map(({ path }) => path),
        open,
      ).to.deep.equal(['/a'])
    }
  })

  it('with a comment of any length, and a "<" where none may be', () => {
    const xml = `<!--${'<response><href>/no</href></response>'.repeat(100)}--><x < <response><href>/a</href></response>`
    expect(parseMultistatus(xml, false).map(({ path }) => path)).to.deep.equal(['/a'])
  })
})
