import type { MappingClaim } from '../../shared/contract/routes/mappings.ts'
import { type Executor, encodeRows, lockRows, query, queryOne, recordset } from '../database/sql.ts'
import type { Mapping } from './mapping.ts'

/** Every request of somebody without an identity of their own is compared with all. */
export const MOST_MAPPINGS = 200

/** In the order in which they are asked. */
export async function listMappings(executor: Executor): Promise<Mapping[]> {
  return query(
    executor,
    `SELECT mappings.id, issuer, claim, pattern, vo_id AS "voId", vos.name AS vo, target, mappings.name
       FROM mappings JOIN vos ON vos.id = mappings.vo_id ORDER BY position, mappings.id`,
  )
}

export interface NewMapping {
  readonly issuer: string
  readonly claim: MappingClaim
  readonly pattern: string
  readonly voId: number
  readonly target: Mapping['target']
  readonly name: string
}

/** At this position, from 1 on, or after all others; its key. Undefined when there are too many already. */
export async function insertMapping(
  executor: Executor,
  mapping: NewMapping,
  position: number | undefined,
  now: number,
): Promise<number | undefined> {
  await lockRows(executor, 'mappings', await idsInOrder(executor))
  const before = await idsInOrder(executor)
  if (before.length >= MOST_MAPPINGS) return undefined
  const at = Math.min(position ?? MOST_MAPPINGS, before.length + 1)
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO mappings (position, issuer, claim, pattern, vo_id, target, name, created_at)
     VALUES (:at, :issuer, :claim, :pattern, :voId, :target, :name, :now) RETURNING id`,
    { ...mapping, at, now },
  )
  const places = before.map((id, i) => ({ id, position: i + 1 < at ? i + 1 : i + 2 }))
  await query(
    executor,
    `UPDATE mappings SET position = given.position FROM ${recordset(executor, 'rows', { id: 'bigint', position: 'bigint' })} AS given
      WHERE mappings.id = given.id AND mappings.position <> given.position`,
    { rows: encodeRows(places) },
  )
  return row?.id
}

async function idsInOrder(executor: Executor): Promise<number[]> {
  const rows = await query<{ id: number }>(executor, 'SELECT id FROM mappings ORDER BY position, id')
  return rows.map(({ id }) => id)
}

/** False when there is no such mapping. */
export async function deleteMapping(executor: Executor, id: number): Promise<boolean> {
  return (await query(executor, 'DELETE FROM mappings WHERE id = :id RETURNING id', { id })).length > 0
}
