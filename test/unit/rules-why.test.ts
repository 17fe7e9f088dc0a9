import { expect } from 'chai'
import type { StuckLock } from '../../server/rules/read-store.ts'
import { type LockRse, problemOf } from '../../server/rules/why.ts'

const LOCK: StuckLock = {
  rule_id: 7,
  did: 's:f',
  rse_id: 1,
  fault_code: null,
  fault_message: null,
  is_bad: false,
  unconfirmed: false,
  good: true,
  reason: null,
  via: null,
  code: 'STORAGE_ERROR',
  message: '500',
}
const RSE: LockRse = { name: 'A', readable: true, writable: true, named: true }

const TABLE: readonly {
  what: string
  lock?: Partial<StuckLock>
  rse?: Partial<LockRse>
  code: string
  says: string
}[] = [
  { what: 'what its last transfer met', code: 'STORAGE_ERROR', says: '500' },
  { what: 'that nothing was kept', lock: { code: null, message: null }, code: 'UNKNOWN', says: 'nothing was kept' },
  { what: 'that nobody has the file', lock: { reason: 'NO_SOURCE' }, code: 'NO_SOURCE', says: 'no storage has' },
  {
    what: 'that none of its sources has the file',
    lock: { reason: 'NO_ALLOWED_SOURCE' },
    code: 'NO_ALLOWED_SOURCE',
    says: 'none of the storages that its rule names as sources',
  },
  {
    what: 'that nothing could be written there',
    lock: { reason: 'DESTINATION_CLOSED' },
    code: 'DESTINATION_CLOSED',
    says: 'nothing could be written to its storage',
  },
  {
    what: 'a storage that turned read-only (rucio #7538)',
    rse: { writable: false },
    lock: { reason: 'NO_SOURCE' },
    code: 'RSE_READ_ONLY',
    says: 'nothing is written to A now; `waybill rule move 7',
  },
  {
    what: 'a storage that was decommissioned (rucio #7538)',
    rse: { writable: false, readable: false },
    code: 'RSE_CLOSED',
    says: 'A is neither written to nor read',
  },
  {
    what: 'a storage that left the expression (rucio #7538)',
    rse: { named: false },
    code: 'RSE_LEFT_EXPRESSION',
    says: 'does not name A any more; `waybill rule move 7 --to <expression>` has the copies elsewhere: the same one in parentheses',
  },
  {
    what: 'what its replica was found to be, before all else',
    lock: { fault_code: 'SOURCE_CORRUPT', fault_message: 'other bytes', is_bad: true },
    rse: { writable: false, named: false },
    code: 'SOURCE_CORRUPT',
    says: 'other bytes',
  },
  {
    what: 'that somebody has to say that what was registered is BAD',
    lock: { fault_code: 'SOURCE_CORRUPT', fault_message: 'other bytes', is_bad: true, unconfirmed: true },
    code: 'SOURCE_CORRUPT',
    says: 'other bytes; a worker found it BAD, and it was registered',
  },
  {
    what: 'that nobody has what was lost',
    lock: { fault_code: 'DECLARED_LOST', fault_message: 'disk 7', good: false },
    code: 'DECLARED_LOST',
    says: 'disk 7; no storage has a good copy of the file',
  },
  {
    what: 'what its last transfer met, where what was lost is brought anew',
    lock: { fault_code: 'DECLARED_LOST', fault_message: 'disk 7' },
    code: 'STORAGE_ERROR',
    says: '500',
  },
]

describe('why a lock is stuck', () => {
  for (const { what, lock, rse, code, says } of TABLE) {
    it(`names ${what}`, () => {
      const problem = problemOf({ ...LOCK, ...lock }, { ...RSE, ...rse })
      expect(problem.code).to.equal(code)
      expect(problem.message).to.contain(says)
    })
  }
})
