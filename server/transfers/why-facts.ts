import type { GrantState } from '../../shared/domain/grant-state.ts'
import type { TransferState } from '../../shared/domain/transfer-state.ts'
import type { WhyCode } from '../../shared/domain/why-codes.ts'

/** Why a transfer waits, or how it stands. */
export interface Why {
  readonly code: WhyCode
  readonly sentence: string
  /** Counts, names, and `since`: epoch milliseconds. */
  readonly figures: Readonly<Record<string, number | string>>
  /** When it is looked at again, epoch milliseconds. Absent where an event decides, which the sentence names. */
  readonly again?: number
}

/** What the answer to "why does it wait" looks at. Times are epoch milliseconds. */
export interface WhyFacts {
  readonly now: number
  readonly state: TransferState
  readonly attempts: number
  /** 0: at once. */
  readonly notBefore: number
  readonly bytes: number
  readonly bytesDone: number
  readonly cancelRequested: boolean
  readonly updatedAt: number
  /** Of its last attempt that failed. */
  readonly lastError: ErrorFacts | undefined
  readonly destination: StorageFacts
  /** Undefined: none was found yet. */
  readonly source: StorageFacts | undefined
  readonly link: LinkFacts | undefined
  /** Of the destination, for the transfer's VO, where it fails or has failed. */
  readonly destinationHold: (HoldFacts & { readonly room: number }) | undefined
  readonly grants: { readonly source: GrantFacts | undefined; readonly destination: GrantFacts | undefined }
  readonly permit: PermitFacts | undefined
  /** Which storages its rule names as sources; undefined: all. */
  readonly sources: string | undefined
  /** Of a transfer that waits for a source. */
  readonly replicas: ReplicasFacts
  /** Of one that waits until its file is nearer. */
  readonly way: WayFacts | undefined
  readonly queue: QueueFacts
  readonly workers: WorkersFacts
  /** What its storage was asked to do with its tape. */
  readonly tape: TapeFacts | undefined
  /** That has it now. */
  readonly holder: HolderFacts | undefined
}

export interface TapeFacts {
  /** The storage was asked, and since when. */
  readonly isAsked: boolean
  readonly since: number
  /** Its last words, where something failed. */
  readonly error: string | undefined
  readonly next: number
}

export interface ErrorFacts {
  readonly code: string
  readonly message: string
}

export interface StorageFacts {
  readonly name: string
  readonly isReadable: boolean
  readonly isWritable: boolean
  /** Active transfers, and how many may be. */
  readonly inbound: number
  readonly maxInbound: number
  readonly outbound: number
  readonly maxOutbound: number
}

export interface LinkFacts {
  /** 0: the link is closed. */
  readonly distance: number
  readonly active: number
  /** What may be active on it now: less than `maxActive` while its source is held, or on trial. */
  readonly limit: number
  readonly maxActive: number
  /** Its source fails on it, or has failed. */
  readonly hold: HoldFacts | undefined
}

export interface HoldFacts extends ErrorFacts {
  readonly since: number
  /** In the past: on trial. */
  readonly heldUntil: number
  /** Copies on trial that are done. */
  readonly successes: number
}

export interface GrantFacts {
  readonly id: number
  readonly state: GrantState
  readonly error: string | null
  readonly notBefore: number
  readonly isUsable: boolean
  /** Its token lives long enough to begin with, or a worker can refresh it. */
  readonly isLongLived: boolean
}

/** Nothing begins at the transfer's destination before `until`. */
export interface PermitFacts {
  readonly until: number
  /** A person may put the file there; else a worker may remove it. */
  readonly isPersons: boolean
}

export interface ReplicasFacts {
  /** All that the catalogue knows, without the destination's own. */
  readonly total: number
  /** Some of them, those that can be used first. */
  readonly some: readonly ReplicaFacts[]
}

export interface WayFacts {
  /** The storage that it goes over. */
  readonly via: string
  /** The transfer that brings the file there. */
  readonly hop: number
}

export interface ReplicaFacts {
  readonly storage: string
  readonly state: string
  readonly isReadable: boolean
  readonly isLinked: boolean
  /** Of a storage that its rule names as a source, where it names any. */
  readonly isAllowed: boolean
}

export interface QueueFacts {
  /** Counts below end here: more may be there. */
  readonly counted: number
  /** Transfers of a higher priority that are queued on the link. */
  readonly urgent: number
  /** Of the same priority that come first. */
  readonly before: number
  /** So many bundles have tokens and come first that none were asked for it yet. */
  readonly isFarBack: boolean
}

/** Workers with a living session whose pools serve the transfer's VO: of others its people know nothing. */
export interface WorkersFacts {
  readonly alive: number
  readonly drained: number
  /** Not drained, and may take this transfer. */
  readonly serving: number
  /** Transfers that these have now. */
  readonly busy: number
}

export interface HolderFacts {
  readonly worker: string
  readonly claimedAt: number
  /** Its session has not ended and is in time. */
  readonly isAlive: boolean
}

/** `CODE: the storage's own words`. */
export function wordsOf({ code, message }: ErrorFacts): string {
  return message === '' ? code : `${code}: ${message}`
}
