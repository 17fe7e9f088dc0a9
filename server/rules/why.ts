import { STAYS } from '../deletion/stays.ts'
import { CLOSED, NOWHERE, NOWHERE_ALLOWED } from '../transfers/lost.ts'
import type { ShownProblem, ShownRule, StuckLock } from './read-store.ts'

/** How a rule stands. */
export type RuleStanding = Pick<
  ShownRule,
  'state' | 'stage' | 'locks_ok' | 'locks_replicating' | 'locks_stuck' | 'problems' | 'error'
>

/**
 * How a rule stands, in one sentence. `deleted`: so many of its files are on their way without a transfer, since what lies at their
 * places is deleted first. Pure.
 */
export function ruleSentence(rule: RuleStanding, deleted = 0): string {
  const first = deleted === 0 ? '' : `; at the places of ${deleted} what lies there is deleted first`
  return `${standing(rule)}${first}`
}

function standing(rule: RuleStanding): string {
  const { state, stage, locks_ok, locks_replicating, locks_stuck } = rule
  switch (state) {
    case 'OK':
      return `all its ${locks_ok} files are there`
    case 'STUCK':
      return `it is stuck: ${troubles(rule).join('; ')}`
    case 'SUSPENDED':
      return 'it is suspended: nothing is done for it'
    case 'WAITING_APPROVAL':
      return 'it waits until somebody approves it'
    case 'INJECT':
      return 'it is being made'
    case 'REPLICATING': {
      if (stage === 'CHOOSING') return 'its storages are being chosen'
      const copying = `${locks_replicating} of ${locks_ok + locks_replicating + locks_stuck} files are not there yet`
      return stage === 'EXPANDED' ? copying : `its files are still being locked: ${copying}`
    }
  }
}

function troubles({ error, locks_ok, locks_replicating, locks_stuck, problems }: RuleStanding): string[] {
  const total = locks_ok + locks_replicating + locks_stuck
  return [
    ...(error === null ? [] : [error]),
    ...(locks_stuck === 0 ? [] : [`${locks_stuck} of ${total} files could not be copied`]),
    ...(problems === 0 ? [] : [`${problems} files can have no lock`]),
    ...(locks_replicating === 0
      ? []
      : [locks_replicating === 1 ? '1 is on its way' : `${locks_replicating} are on their way`]),
  ]
}

/** What is known of the storage that a lock is at. */
export interface LockRse {
  readonly name: string
  readonly readable: boolean
  readonly writable: boolean
  /** The rule's expression names it. */
  readonly named: boolean
}

/**
 * Why a lock is stuck: what its replica is comes before what became of its storage (rucio #7538), that before what its last transfer met,
 * and that before what failed earlier. Pure.
 */
export function problemOf(lock: StuckLock, rse: LockRse | undefined): ShownProblem {
  const { did, rse_id, fault_code, fault_message, good, reason, via, code, message } = lock
  // What is being brought anew is stuck for what that met.
  if (fault_code !== null && (lock.is_bad || !good)) {
    const more = good
      ? lock.is_bad && lock.unconfirmed
        ? `; ${STAYS.UNCONFIRMED}`
        : ''
      : '; no storage has a good copy of the file'
    return { did, rse_id, code: fault_code, message: `${fault_message ?? ''}${more}` }
  }
  const storage = rse && storageProblem(rse, lock.rule_id)
  if (storage !== undefined) return { did, rse_id, ...storage }
  if (reason === 'NO_SOURCE') return { did, rse_id, code: reason, message: NOWHERE }
  if (reason === 'NO_ALLOWED_SOURCE') return { did, rse_id, code: reason, message: NOWHERE_ALLOWED }
  if (reason === 'DESTINATION_CLOSED') return { did, rse_id, code: reason, message: CLOSED }
  if (reason === 'HOP_FAILED') return { did, rse_id, code: reason, message: `over ${via ?? 'other storages'}` }
  return { did, rse_id, code: code ?? 'UNKNOWN', message: message ?? 'nothing was kept of why' }
}

function storageProblem(rse: LockRse, ruleId: number): { code: string; message: string } | undefined {
  const advice = `\`waybill rule move ${ruleId} --to <expression>\` has the copies elsewhere`
  if (!rse.writable && !rse.readable) {
    return { code: 'RSE_CLOSED', message: `${rse.name} is neither written to nor read any more; ${advice}` }
  }
  if (!rse.writable) return { code: 'RSE_READ_ONLY', message: `nothing is written to ${rse.name} now; ${advice}` }
  if (rse.named) return undefined
  const again = 'the same one in parentheses chooses anew by it'
  return {
    code: 'RSE_LEFT_EXPRESSION',
    message: `the rule's expression does not name ${rse.name} any more; ${advice}: ${again}`,
  }
}

/** One file of those that wait, and why. */
export interface Waiting {
  readonly id: number
  readonly code: string
  readonly source: string | undefined
  readonly destination: string
}

export interface WaitingGroup<T extends Waiting> {
  readonly example: T
  readonly count: number
}

/** Those that wait for the same on the same way, the most first. Pure. */
export function grouped<T extends Waiting>(waiting: readonly T[]): WaitingGroup<T>[] {
  const groups = new Map<string, { example: T; count: number }>()
  for (const example of waiting) {
    const key = [example.code, example.source ?? '', example.destination].join(' ')
    const group = groups.get(key)
    if (group === undefined) groups.set(key, { example, count: 1 })
    else group.count += 1
  }
  return [...groups.values()].sort((a, b) => b.count - a.count || a.example.id - b.example.id)
}
