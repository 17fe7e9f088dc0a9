import { expect } from 'chai'
import { rseFields } from '../../cli/rse.ts'
import { protocol, rse } from '../../shared/contract/routes/storages.ts'

const PROTOCOL = protocol.parse({ url: 'https://a.example.org:1094' })
const RSE = {
  name: 'SITE-A',
  vo: 'exp',
  prefix: '/data/exp',
  basePath: '/',
  audience: 'https://a.example.org:1094',
  layout: 'dataset' as const,
  checksum: 'adler32' as const,
  availabilityRead: true,
  availabilityWrite: true,
  availabilityDelete: true,
  maxInbound: 100,
  maxOutbound: 100,
  maxStaging: 100,
  maxDeletions: 100,
  checksumPolicy: 'destination' as const,
  watchdogs: {},
  tape: false,
  multihop: false,
  capacityBytes: null,
  minFreeBytes: null,
  keepRegistered: true,
  tombstoneDelaySeconds: null,
  attributes: {},
  protocols: [PROTOCOL],
}

/** Another value for every property that a storage has. */
const OTHER = {
  name: 'SITE-B',
  vo: 'other',
  prefix: '/data/other',
  basePath: '/data',
  audience: 'https://wlcg.example.org',
  layout: 'hash' as const,
  checksum: 'md5' as const,
  availabilityRead: false,
  availabilityWrite: false,
  availabilityDelete: false,
  maxInbound: 1,
  maxOutbound: 1,
  maxStaging: 1,
  maxDeletions: 1,
  checksumPolicy: 'both' as const,
  watchdogs: { connectSeconds: 1 },
  tape: true,
  multihop: true,
  capacityBytes: 1,
  minFreeBytes: 1,
  keepRegistered: false,
  tombstoneDelaySeconds: 1,
  attributes: { tier: 1 },
  failing: [
    { vo: 'exp', failures: 0, holds: 1, since: 1, heldUntil: 2, code: 'DESTINATION_FULL', message: 'no space' },
  ],
}
const OTHER_PROTOCOL = {
  url: 'https://b.example.org',
  priority: 7,
  canPull: false,
  canPush: false,
  freshConnections: true,
  macaroons: true,
  redirectHosts: ['pool.example.org'],
}

describe('command line: what rse show shows', () => {
  const shown = (changed: object): string => JSON.stringify(rseFields({ ...RSE, ...changed }))

  it('every property of a storage', () => {
    expect(Object.keys({ ...OTHER, protocols: [] })).to.have.members(Object.keys(rse.shape))
    for (const [key, value] of Object.entries(OTHER)) expect(shown({ [key]: value }), key).not.to.equal(shown({}))
  })

  it('every property of each protocol', () => {
    expect(Object.keys(OTHER_PROTOCOL)).to.have.members(Object.keys(protocol.shape))
    for (const [key, value] of Object.entries(OTHER_PROTOCOL)) {
      const protocols = [PROTOCOL, { ...PROTOCOL, [key]: value }]
      expect(shown({ protocols }), key).not.to.equal(shown({ protocols: [PROTOCOL, PROTOCOL] }))
    }
  })

  it('in words', () => {
    expect(rseFields({ ...RSE, protocols: [PROTOCOL, OTHER_PROTOCOL] }).protocols).to.equal(
      'https://a.example.org:1094 (pull, push, priority 0); https://b.example.org (streamed only, priority 7, fresh connections, macaroons, redirects to pool.example.org)',
    )
  })
})
