import { expect } from 'chai'
import fc from 'fast-check'
import { type MarkerEvent, MarkerParser } from '../../shared/storage/perf-markers.ts'

function parse(...chunks: (string | Buffer)[]): MarkerEvent[] {
  const parser = new MarkerParser()
  return [...chunks.flatMap(chunk => parser.push(Buffer.from(chunk))), ...parser.end()]
}

const marker = (bytes: number): MarkerEvent => ({ kind: 'marker', bytes })
const success = (line: string): MarkerEvent => ({ kind: 'end', success: true, line })
const failure = (line: string): MarkerEvent => ({ kind: 'end', success: false, line })

// The exact texts: facts/http-tpc.md section 2, and XRootD 5.5.3 as it was seen to answer.
const XROOTD =
  'Perf Marker\nTimestamp: 1795352022\nStripe Index: 0\nStripe Bytes Transferred: 0\nTotal Stripe Count: 1\nRemoteConnections: tcp:127.0.0.1:19443\nEnd\n'
const XROOTD_UNCONNECTED =
  'Perf Marker\nTimestamp: 1795383308\nStripe Index: 0\nStripe Bytes Transferred: 0\nTotal Stripe Count: 1\nEnd\n'
const MISSING =
  'failure: Remote side failed with status code 404; error message: "Unable to open /exp/missing; no such file or directory "'
const DCACHE = `Perf Marker
    Timestamp: 1360578938
    State: Running
    State description: Mover created
    Stripe Index: 0
    Stripe Start Time: 1360578937
    Stripe Last Transferred: 1360578938
    Stripe Transfer Time: 1
    Stripe Bytes Transferred: 4194304
    Stripe Status: RUNNING
    Total Stripe Count: 1
    RemoteConnections: tcp:[2001:db8::1]:1094
End
`
const STORM =
  'Perf Marker\r\nTimestamp: 1795352022\r\nStripe Index: 0\r\nStripe Bytes Transferred: 900\r\nTotal Stripe Count: 1\r\nEnd\r\n'

describe('performance markers', () => {
  const cases: [string, string, MarkerEvent[]][] = [
    ['XRootD', `${XROOTD}success: Created`, [marker(0), success('success: Created')]],
    ['XRootD, not connected', `${XROOTD_UNCONNECTED}${MISSING}`, [marker(0), failure(MISSING)]],
    ['dCache', `${DCACHE}success: Created\n`, [marker(4_194_304), success('success: Created')]],
    [
      'dCache, refused',
      `${DCACHE}failure: rejected GET: 404 Not Found\n`,
      [marker(4_194_304), failure('failure: rejected GET: 404 Not Found')],
    ],
    ['StoRM', `${STORM}success: Created`, [marker(900), success('success: Created')]],
    ['StoRM, at once', 'success: Created', [success('success: Created')]],
    ['aborted', 'aborted', [failure('aborted')]],
    ['failed', 'Failed: no idea', [failure('Failed: no idea')]],
    ['no outcome', XROOTD, [marker(0)]],
    ['nothing', '', []],
    ['nonsense', '<html>\n<body>success is near</body>', []],
    ['a marker that breaks off', 'Perf Marker\nStripe Bytes Transferred: 5', []],
    ['words after the outcome', 'success: Created\nfailure: no\nPerf Marker\nEnd\n', [success('success: Created')]],
    ['keys in other cases', 'PERF MARKER\nstripe index : 0\nSTRIPE BYTES TRANSFERRED:7\nEND\n', [marker(7)]],
    ['a figure that is none', 'Perf Marker\nStripe Bytes Transferred: -1\nEnd\n', [marker(0)]],
    ['a figure too large', `Perf Marker\nStripe Bytes Transferred: ${'9'.repeat(30)}\nEnd\n`, [marker(0)]],
  ]
  for (const [name, text, events] of cases) it(`of ${name}`, () => expect(parse(text)).to.deep.equal(events))

  const words: [string, string, string][] = [
    ['none beside markers', `${DCACHE}${XROOTD}${STORM}`, ''],
    ['none of the outcome, nor after it', `${XROOTD}success: Created\nbye`, ''],
    ['those before, between and after markers', `a: 1\n${DCACHE}\n  b\r\n${XROOTD}c`, 'a: 1\nb\nc\n'],
    ['no unknown field of a marker', 'Perf Marker\nColour: red\nStripe Index: 0\nEnd\n', ''],
    ['those in a marker that never ends', 'Perf Marker\nState: Running\nran out: of memory', 'ran out: of memory\n'],
    ['those in a marker that another follows', 'Perf Marker\nkilled\nPerf Marker\nEnd\n', 'killed\n'],
    ['no end without a beginning', `a\n${XROOTD}b\nEnd\n`, 'a\nb\n'],
  ]
  for (const [name, text, kept] of words) {
    it(`keeps words: ${name}`, () => {
      const parser = new MarkerParser()
      parser.push(Buffer.from(text))
      parser.end()
      expect(parser.words).to.equal(kept)
    })
  }

  it('keeps 4096 characters of words at most, and no last word that was cut', () => {
    const parser = new MarkerParser()
    for (let line = 0; line < 1000; line++) parser.push(Buffer.from(`line ${line}\n`))
    expect(parser.words).to.have.length.within(4000, 4096)
    const long = new MarkerParser()
    long.push(Buffer.from(`some ${'x'.repeat(5000)}\n${'y'.repeat(5000)}\n`))
    expect(long.words.trim()).to.equal('some')
  })

  it('adds stripes up, each by its last figure', () => {
    const stripe = (index: number, bytes: number) =>
      `Perf Marker\nStripe Index: ${index}\nStripe Bytes Transferred: ${bytes}\nTotal Stripe Count: 2\nEnd\n`
    const events = parse(stripe(0, 100), stripe(1, 50), stripe(0, 150), stripe(1, 70))
    expect(events).to.deep.equal([marker(100), marker(150), marker(200), marker(220)])
  })

  it('is the same however the bytes are cut', () => {
    const text = Buffer.from(`${DCACHE}${XROOTD}failure: übel ${MISSING}`)
    const whole = parse(text)
    fc.assert(
      fc.property(fc.array(fc.nat(text.length), { maxLength: 20 }), cuts => {
        const at = [0, ...cuts.sort((a, b) => a - b), text.length]
        const chunks = at.slice(1).map((end, index) => text.subarray(at[index], end))
        expect(parse(...chunks)).to.deep.equal(whole)
      }),
    )
  })

  it('keeps no more than 4096 characters of a line', () => {
    const events = parse('failure: ', ...Array.from({ length: 1000 }, () => 'x'.repeat(1000)))
    expect(events).to.have.length(1)
    expect(events[0]).to.have.property('line').with.length(4096)
  })

  it('remembers no more stripes than any storage has', () => {
    const parser = new MarkerParser()
    let last: MarkerEvent | undefined
    for (let index = 0; index < 3000; index++) {
      last = parser.push(Buffer.from(`Perf Marker\nStripe Index: ${index}\nStripe Bytes Transferred: 1\nEnd\n`))[0]
    }
    expect(last).to.deep.equal(marker(1024))
  })
})
