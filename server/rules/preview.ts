import type { CallerAccount } from '../accounts/caller.ts'
import { Quota } from '../accounts/quota.ts'
import { limitsFor, usageOf } from '../accounts/usage-store.ts'
import { datasetsBelow, filesOf } from '../catalogue/contents-store.ts'
import type { Executor } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { Chooser, candidatesOf, type Holding, shortWords, type Unit } from './candidates.ts'
import { holdings, holdingsBelow } from './choice-store.ts'
import type { Rooms } from './room.ts'
import type { LeftOut } from './select.ts'
import { type Asked, demandRules, type RuleRequest } from './submit.ts'

/** Datasets, or with grouping NONE files, that are looked at for one request: more are reckoned up from them. */
const UNITS_LOOKED_AT = { datasets: 1_000, files: 5_000 }
/** Looked at together. */
const UNITS_AT_ONCE = 100

export interface Preview {
  readonly did: string
  readonly files: number
  readonly bytes: number
  /** False: reckoned up from the first datasets or files. */
  readonly exact: boolean
  readonly places: { readonly rse: string; readonly bytes: number; readonly bytesToMove: number }[]
  /** Why some datasets or files would have fewer copies than asked for. */
  readonly error?: string
}

/**
 * What these rules would choose now, and how many bytes would come to each storage: nothing is written. It is what the evaluator chooses,
 * by the same function and the same seed, as long as nothing changes meanwhile. Throws as `submitRules`.
 */
export async function previewRules(
  read: Executor,
  rses: readonly Rse[],
  rooms: Rooms,
  account: CallerAccount,
  request: RuleRequest,
): Promise<Preview[]> {
  const asked = await demandRules(read, rses, account, request)
  const { candidates } = candidatesOf(request.expression, rses)
  const limits = request.askApproval ? [] : await limitsFor(read, account.id)
  const quota = new Quota(limits, await usageOf(read, account.id), rses)
  const left = await rooms.left(candidates)
  const previews: Preview[] = []
  for (const [i, one] of asked.entries()) {
    const { copies, expression, weight = null } = request
    const rule = { account_id: account.id, did_id: one.did.id, expression, copies, weight }
    const { units, exact } = await unitsOf(read, request, one, asked.length)
    const chooser = new Chooser(rule, candidates, { quota, rooms: left })
    const places = new Map<number, Place>()
    const leftOut: LeftOut[] = []
    let short = 0
    let looked = 0
    for (let start = 0; start < units.length; start += UNITS_AT_ONCE) {
      const some = units.slice(start, start + UNITS_AT_ONCE)
      const held = await heldBy(read, request, one, some)
      chooser.know(held)
      for (const unit of some) {
        looked += unit.bytes
        const selection = chooser.select(unit, new Set())
        for (const rseId of selection.added) {
          chooser.take(unit, rseId)
          count(places, rseId, unit, held)
        }
        if (selection.added.length >= copies) continue
        short += 1
        leftOut.push(...selection.leftOut)
      }
    }
    const what = request.grouping === 'NONE' ? 'file' : 'dataset'
    const error = short === 0 ? undefined : shortWords(what, { short, further: !exact }, leftOut, rses)
    const did = request.dids[i] ?? ''
    const whole = { did, files: one.files, bytes: one.bytes, exact, places: shown(places, rses, looked, one.bytes) }
    previews.push({ ...whole, ...(error === undefined ? {} : { error }) })
  }
  return previews
}

interface Place {
  bytes: number
  bytesToMove: number
}

function count(places: Map<number, Place>, rseId: number, unit: Unit, held: readonly Holding[]): void {
  const place = places.get(rseId) ?? { bytes: 0, bytesToMove: 0 }
  const holding = held.find(({ unit_id, rse_id }) => unit_id === unit.id && rse_id === rseId)
  place.bytes += unit.bytes
  place.bytesToMove += unit.bytes - (holding?.held ?? 0) - (holding?.coming ?? 0)
  places.set(rseId, place)
}

/** In proportion, where not all was looked at. */
function shown(places: ReadonlyMap<number, Place>, rses: readonly Rse[], looked: number, all: number) {
  const factor = looked === 0 ? 1 : all / looked
  return rses.flatMap(({ id, name }) => {
    const place = places.get(id)
    if (place === undefined) return []
    return { rse: name, bytes: Math.round(place.bytes * factor), bytesToMove: Math.round(place.bytesToMove * factor) }
  })
}

/** What storages are chosen for. */
async function unitsOf(
  read: Executor,
  { grouping }: RuleRequest,
  { did, files, bytes }: Asked,
  dids: number,
): Promise<{ units: Unit[]; exact: boolean }> {
  if (did.type === 'FILE' || grouping === 'ALL') return { units: [{ id: did.id, bytes }], exact: true }
  const share = (most: number): number => Math.max(1, Math.floor(most / dids))
  const most = share(UNITS_LOOKED_AT.datasets)
  const datasets = await datasetsBelow(read, did.id, 0, most + 1)
  if (grouping === 'DATASET') return { units: datasets.slice(0, most), exact: datasets.length <= most }
  const units = new Map<number, Unit>()
  const mostFiles = share(UNITS_LOOKED_AT.files)
  for (const { id } of datasets) {
    if (units.size >= mostFiles) break
    const some = await filesOf(read, { id, type: 'DATASET' }, 0, mostFiles - units.size)
    for (const unit of some) units.set(unit.id, unit)
  }
  return { units: [...units.values()], exact: units.size >= files }
}

async function heldBy(read: Executor, { grouping }: RuleRequest, { did }: Asked, units: readonly Unit[]) {
  if (grouping === 'ALL') return holdingsBelow(read, did.id)
  return holdings(
    read,
    units.map(unit => unit.id),
  )
}
