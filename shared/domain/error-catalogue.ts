/** Where an attempt failed. TOKEN: a credential was refused, so the storage itself may be healthy. */
export type TransferScope = 'SOURCE' | 'DESTINATION' | 'TRANSFER' | 'TOKEN' | 'GENERAL'

export type TransferPhase = 'PREPARATION' | 'TRANSFER' | 'FINALIZATION'

/**
 * When the same may succeed without anybody's doing. soon: a blip. later: the storage asks for rest. never: waiting changes
 * nothing, though another source may have the file. uncounted: what it waits for is known and is looked at by itself, so it costs
 * no attempt.
 */
export type Retry = 'soon' | 'later' | 'never' | 'uncounted'

/**
 * What an error holds back beside its own transfer. storage: the storage in its scope, after ten files in a row. storage-at-once:
 * that, with the first file. grant: the token at that storage, when the next one is refused too.
 */
export type Holds = 'nothing' | 'storage' | 'storage-at-once' | 'grant'

export interface ErrorEntry {
  readonly scopes: readonly TransferScope[]
  readonly phases: readonly TransferPhase[]
  readonly retry: Retry
  readonly holds: Holds
  /** For people: what happened, and what to do about it. */
  readonly meaning: string
}

const STORAGES = ['SOURCE', 'DESTINATION'] as const
const ANYWHERE = ['SOURCE', 'DESTINATION', 'TRANSFER', 'GENERAL'] as const
const BEFORE = ['PREPARATION'] as const
const AROUND = ['PREPARATION', 'FINALIZATION'] as const
const ALWAYS = ['PREPARATION', 'TRANSFER', 'FINALIZATION'] as const

/** Says what an attempt's error is about, and what follows from it. One row for each code that a storage's answer can lead to. */
const STORAGE_ERRORS = {
  SOURCE_MISSING: row(
    ['SOURCE'],
    ALWAYS,
    'never',
    'nothing',
    'the source says there is no such file: the catalogue or the storage is wrong. A worker looks ten minutes later, and copies it there anew if it was lost',
  ),
  SOURCE_CUT_OFF: row(['SOURCE'], ['TRANSFER'], 'soon', 'storage', 'the source ended early'),
  SOURCE_CORRUPT: row(
    ['SOURCE'],
    AROUND,
    'never',
    'nothing',
    'the source has another size or checksum than the catalogue: its replica is BAD now, and recovered if another storage has the file (an original, once a person says so); another source is taken if there is one',
  ),
  DESTINATION_EXISTS: row(
    ['DESTINATION'],
    ALWAYS,
    'never',
    'nothing',
    'another file lies at the destination’s path and is left alone: look at it, remove it there',
  ),
  DESTINATION_CONFLICT: row(
    ['DESTINATION'],
    ALWAYS,
    'soon',
    'nothing',
    'the destination answered 409 and did not say why',
  ),
  DESTINATION_FULL: row(
    ['DESTINATION'],
    ALWAYS,
    'uncounted',
    'storage-at-once',
    'no space or quota: make room. Nothing else is sent there meanwhile; a single file tries again after a minute, then less and less often, at most every hour.',
  ),
  PARENT_MISSING: row(
    ['DESTINATION'],
    ALWAYS,
    'soon',
    'nothing',
    'the parent directory is missing and could not be made',
  ),
  NOT_FOUND: row(
    ['SOURCE', 'DESTINATION', 'GENERAL'],
    ALWAYS,
    'never',
    'nothing',
    '404, and the storage did not say what',
  ),
  TOKEN_REFUSED: row(
    ['TOKEN'],
    ALWAYS,
    'soon',
    'grant',
    '401 to one request of a storage that believes the token; or the issuer’s refusal',
  ),
  PERMISSION_DENIED: row(ANYWHERE, ALWAYS, 'never', 'nothing', '403: base path, scopes, or rights of the storage'),
  NOT_SUPPORTED: row(ANYWHERE, ALWAYS, 'never', 'nothing', 'neither pull nor push, and streaming was refused too'),
  REQUEST_REFUSED: row(ANYWHERE, ALWAYS, 'never', 'nothing', 'another 4xx'),
  TOO_MANY_REQUESTS: row(ANYWHERE, ALWAYS, 'later', 'storage', '429. `Retry-After` is obeyed, for all that goes there'),
  STORAGE_BUSY: row(
    ANYWHERE,
    ALWAYS,
    'later',
    'storage',
    '503, 408, 423 or 425. `Retry-After` is obeyed, for all that goes there',
  ),
  STORAGE_ERROR: row(ANYWHERE, ALWAYS, 'later', 'storage', 'another 5xx'),
  STAGING_FAILED: row(
    ['SOURCE'],
    BEFORE,
    'later',
    'nothing',
    'the storage could not bring the file from tape; its words say more',
  ),
  STAGING_TIMEOUT: row(
    ['SOURCE'],
    BEFORE,
    'later',
    'nothing',
    'the storage has not brought the file from tape for a week',
  ),
  FILE_LOST: row(
    ['SOURCE'],
    BEFORE,
    'never',
    'nothing',
    'the storage says that the file is lost: its replica is BAD now, and another source is taken if there is one',
  ),
  ARCHIVING_FAILED: row(
    ['DESTINATION'],
    ['FINALIZATION'],
    'later',
    'nothing',
    'the copy lies at the destination, but will not be written to tape; the storage’s words say more',
  ),
  ARCHIVING_TIMEOUT: row(
    ['DESTINATION'],
    ['FINALIZATION'],
    'later',
    'nothing',
    'the copy was not written to tape for three days',
  ),
  TRANSFER_FAILED: row(ANYWHERE, ALWAYS, 'soon', 'nothing', 'the storage says the copy failed; its words say more'),
  TIMEOUT_CONNECT: row(ANYWHERE, ALWAYS, 'soon', 'storage', 'no connection in time'),
  TIMEOUT_HEADERS: row(ANYWHERE, ALWAYS, 'soon', 'storage', 'no answer in time'),
  TIMEOUT_NO_MARKER: row(ANYWHERE, ['TRANSFER'], 'soon', 'storage', 'a copy without a sign of life'),
  TIMEOUT_NO_PROGRESS: row(ANYWHERE, ['TRANSFER'], 'soon', 'storage', 'a copy without a further byte'),
  TIMEOUT_TOTAL: row(ANYWHERE, ALWAYS, 'soon', 'nothing', 'a copy beyond its time'),
  CHECKSUM_MISMATCH: row(
    ANYWHERE,
    ALWAYS,
    'soon',
    'nothing',
    'the copy is wrong, though the source is not: it is removed',
  ),
  CHECKSUM_UNAVAILABLE: row(
    STORAGES,
    AROUND,
    'never',
    'nothing',
    'the storage gives no checksum: its `checksum` (adler32 or md5) is wrong, or it is slow',
  ),
  SIZE_MISMATCH: row(
    ANYWHERE,
    ALWAYS,
    'soon',
    'nothing',
    'the copy has another size, though the source has not: it is removed',
  ),
  OUTCOME_UNKNOWN: row(
    ['DESTINATION', 'TRANSFER'],
    ['TRANSFER', 'FINALIZATION'],
    'soon',
    'nothing',
    'nobody saw the end, and what lay there was wrong',
  ),
  REDIRECT_REFUSED: row(
    ANYWHERE,
    ALWAYS,
    'never',
    'nothing',
    'a redirect to a host that was not named: `waybill rse protocol --redirect-host`',
  ),
  RESOLVE_FAILED: row(ANYWHERE, ALWAYS, 'soon', 'storage', 'the name of the storage’s host does not resolve'),
  CONNECT_FAILED: row(ANYWHERE, ALWAYS, 'soon', 'storage', 'no connection: the network, or the storage is down'),
  TLS_FAILED: row(
    ANYWHERE,
    ALWAYS,
    'soon',
    'storage',
    'the storage’s certificate: CA directory, host name, end of life',
  ),
  CONNECTION_LOST: row(ANYWHERE, ALWAYS, 'soon', 'storage', 'the connection ended early'),
  PROTOCOL_VIOLATION: row(ANYWHERE, ALWAYS, 'soon', 'storage', 'an answer that is none'),
  CANCELLED: row(['GENERAL'], ALWAYS, 'soon', 'nothing', 'the last rule that wanted it was removed'),
} as const satisfies Record<string, ErrorEntry>

/** Those that are Waybill's own, or of a token on its way. */
const OWN_ERRORS = {
  HOP_FAILED: row(
    ['TRANSFER'],
    BEFORE,
    'never',
    'nothing',
    'the file could not be brought to a storage on the way, whose error is told, and there is no other way: the rule’s repair tries all of them again',
  ),
  NO_SOURCE: row(
    ['SOURCE'],
    BEFORE,
    'never',
    'nothing',
    'no storage has the file any more, and nobody is bringing it, for an hour: its rule is STUCK, and it is copied as soon as it is somewhere again',
  ),
  NO_ALLOWED_SOURCE: row(
    ['SOURCE'],
    BEFORE,
    'never',
    'nothing',
    'none of the storages that the rule names as sources has had the file for an hour, and nobody is bringing it there: the rule is STUCK, and its repair tries it when one has it',
  ),
  DESTINATION_CLOSED: row(
    ['DESTINATION'],
    BEFORE,
    'never',
    'nothing',
    'nothing could be written to the storage for an hour: the rule is STUCK, and repaired as soon as somebody opens it (`waybill rse set NAME --write on`)',
  ),
  INTERRUPTED: row(
    ['GENERAL'],
    ALWAYS,
    'soon',
    'nothing',
    'the worker stopped before it saw the end: the destination is looked at. Not counted',
  ),
  WORKER_FAULT: row(['GENERAL'], ALWAYS, 'soon', 'nothing', 'a fault of the worker: its log has the cause'),
  SERVER_UNREACHABLE: row(
    ['GENERAL'],
    ALWAYS,
    'soon',
    'nothing',
    'the worker could not reach the rules server when it needed it',
  ),
  PERMIT_REFUSED: row(['GENERAL'], AROUND, 'soon', 'nothing', 'what lies at the destination may not be removed'),
  PERMIT_LATE: row(
    ['GENERAL'],
    ['FINALIZATION'],
    'soon',
    'nothing',
    'the leave to remove a failed attempt’s file came too late; it is settled',
  ),
  RSE_NOT_DELETABLE: row(
    ['GENERAL'],
    AROUND,
    'soon',
    'nothing',
    '`--delete off` at the destination, where a failed attempt’s file lies',
  ),
  STORAGE_REFUSED_TOKEN: row(
    ['TOKEN'],
    BEFORE,
    'uncounted',
    'grant',
    '401, or 403 for two files, and again with a new token: the storage’s audience, issuer, clock or rights. Held for 5 minutes',
  ),
  TOKEN_LATE: row(['TOKEN'], BEFORE, 'uncounted', 'nothing', 'no token came in time: the issuer is slow'),
  ISSUER_UNREACHABLE: row(['TOKEN'], BEFORE, 'uncounted', 'grant', 'the issuer gave no usable answer'),
  ISSUER_BUSY: row(['TOKEN'], BEFORE, 'uncounted', 'grant', 'the issuer answered 429 or 503'),
  ISSUER_NONSENSE: row(['TOKEN'], BEFORE, 'uncounted', 'grant', 'the issuer’s answer follows no specification'),
  ISSUER_NOT_CONFIGURED: row(
    ['TOKEN'],
    BEFORE,
    'uncounted',
    'nothing',
    'the worker has no client at that issuer: see its `issuers`',
  ),
  ISSUER_UNKNOWN: row(
    ['TOKEN'],
    BEFORE,
    'uncounted',
    'nothing',
    'the server’s configuration names that issuer no more',
  ),
  TOKEN_WIDER: row(
    ['TOKEN'],
    BEFORE,
    'uncounted',
    'grant',
    'the issuer gave more than was asked for: see `waybill token list`',
  ),
  TOKEN_NARROWER: row(
    ['TOKEN'],
    BEFORE,
    'uncounted',
    'grant',
    'the issuer gave less than was asked for: see `waybill token list`',
  ),
  TOKEN_AUDIENCE: row(
    ['TOKEN'],
    BEFORE,
    'uncounted',
    'grant',
    'the issuer gave a token for another audience: see `waybill token list`',
  ),
} as const satisfies Record<string, ErrorEntry>

export const ERROR_CATALOGUE = { ...STORAGE_ERRORS, ...OWN_ERRORS }

/** Stable: stored, counted in metrics and documented. */
export type TransferCode = keyof typeof STORAGE_ERRORS

/** Undefined for a code that this version does not know: a newer worker's, or an issuer's own. */
export function errorEntry(code: string): ErrorEntry | undefined {
  return Object.hasOwn(ERROR_CATALOGUE, code) ? ERROR_CATALOGUE[code as keyof typeof ERROR_CATALOGUE] : undefined
}

function row(
  scopes: readonly TransferScope[],
  phases: readonly TransferPhase[],
  retry: Retry,
  holds: Holds,
  meaning: string,
): ErrorEntry {
  return { scopes, phases, retry, holds, meaning }
}
