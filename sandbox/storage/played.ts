import type { Behaviour } from './behaviour.ts'
import { DCACHE, EOS, STORM, XROOTD_5, XROOTD_6 } from './dialects.ts'

export type Played = 'xrootd5' | 'xrootd6' | 'dcache' | 'storm' | 'eos'

/** What all XRootD have in common: facts/http-tpc.md sections 2 to 5. */
const XROOTD: Partial<Behaviour> = {
  overwriteOnPush: 'ignored',
  remoteConnections: 'once-connected',
  finalNewline: false,
  debris: true,
  inPlace: true,
  afterDisconnect: 'abort-at-marker',
  deleteStatus: 200,
  looksNeedRead: true,
  closesAfterRefusedHead: true,
  unknownChecksum: 'first',
}

/** From 5.7.2 on: header names in any case, COPY makes parents, the source is asked for first. */
const LATER_XROOTD: Partial<Behaviour> = {
  ...XROOTD,
  asksSourceFirst: true,
  mkcol: { existing: 201, parents: true },
  putStatus: { created: 201, replaced: 200 },
}

/**
 * The storages of the facts (sections 1 to 5) that the embedded one can play: `xrootd5` is 5.5.3, measured; `xrootd6` is 6.1.
 * EOS answers by XRootD's own code, of 5.8 (github.com/xrootd/xrootd/issues/2591); its head node sends clients on with 307s,
 * which `redirect` plays.
 */
export const PLAYED: Readonly<Record<Played, Partial<Behaviour>>> = {
  xrootd5: {
    ...XROOTD,
    dialect: XROOTD_5,
    copyStatus: 201,
    headerNames: 'exact',
    makeParents: false,
    putMakesParents: true,
    mkcol: { existing: 201, parents: true },
    putStatus: { created: 200, replaced: 200 },
  },
  xrootd6: {
    ...LATER_XROOTD,
    dialect: XROOTD_6,
    copyStatus: 202,
    mkcol: { existing: 409, parents: true },
    reprDigest: true,
  },
  eos: { ...LATER_XROOTD, dialect: EOS, copyStatus: 201, checksums: ['adler32'] },
  dcache: {
    dialect: DCACHE,
    assumesDelegation: true,
    wantsChecksum: true,
    overwriteOnPush: 'ignored',
    copyStatus: 202,
    markers: 'indented',
    firstMarker: 'after-period',
    remoteConnections: 'once-connected',
    afterDisconnect: 'abort-at-marker',
    blocks: { refusals: 3, seconds: 10 },
    makeParents: false,
  },
  storm: {
    dialect: STORM,
    overwriteOnPush: 'reported',
    copyStatus: 202,
    lateHeaders: true,
    remoteConnections: 'never',
    finalNewline: false,
    debris: true,
    inPlace: true,
    afterDisconnect: 'go-on',
    stallSeconds: 30,
    makeParents: false,
    checksums: ['adler32'],
  },
}
