import type { StateMachine } from './state-machine.ts'

export const IMPORT_STATES = {
  QUEUED: 'it waits for a worker, or for a storage that is away',
  LISTING: 'a worker lists it',
  DONE: 'all that was found is in the catalogue, but for what is told to be left out',
  FAILED: 'refused, in words: it goes on where it was when it is resumed',
  CANCELLED: 'somebody has ended it: what it has registered stays; it goes on when it is resumed',
} as const
export type ImportState = keyof typeof IMPORT_STATES
export type ImportEvent =
  | 'claim' // a worker takes it
  | 'lose' // its worker is gone, or has no answer of the storage: others go on, after a while
  | 'finish' // nothing is left to be listed
  | 'refuse' // the storage, or the catalogue, says what somebody has to mend
  | 'cancel'
  | 'resume'

export const IMPORT_MACHINE: StateMachine<ImportState, ImportEvent> = {
  QUEUED: { claim: 'LISTING', cancel: 'CANCELLED', resume: 'QUEUED' },
  LISTING: { lose: 'QUEUED', finish: 'DONE', refuse: 'FAILED', cancel: 'CANCELLED', resume: 'LISTING' },
  DONE: {},
  FAILED: { cancel: 'CANCELLED', resume: 'QUEUED' },
  CANCELLED: { cancel: 'CANCELLED', resume: 'QUEUED' },
}
