import { WaybillError } from '../../shared/domain/errors.ts'
import { oneLine } from '../../shared/domain/one-line.ts'
import type { Binding } from './sql.ts'

/** What the columns of our schema are on PostgreSQL; SQLite keeps whatever it is given in any of them. */
const TYPES = ['bigint', 'integer', 'boolean', 'text', 'double precision'] as const
export type MovedType = (typeof TYPES)[number]
const INTEGER_MOST = 2 ** 31 - 1
/** UTF-16 units of one key in an error. */
const KEY_MOST = 100

/** A table that is the same on both sides. */
export interface MovedTable {
  readonly name: string
  readonly columns: Readonly<Record<string, MovedType>>
  /** The columns of its primary key, in their order. */
  readonly key: readonly string[]
}

/** `key`: its place in the primary key, from 1 on; 0: it is none of it. */
export type SourceColumn = { readonly table: string; readonly column: string; readonly key: number }
export type TargetColumn = { readonly table: string; readonly column: string; readonly type: string }

/** knex's own: of this version on both sides, since the migrations ran there. */
const OF_KNEX: ReadonlySet<string> = new Set(['knex_migrations', 'knex_migrations_lock'])

/**
 * The tables to be moved, from what stands in both databases and in no list, so that none is forgotten. Throws 400
 * SCHEMA_DIFFERS when a table or a column is on one side only, or of a type that nobody has thought of yet.
 */
export function planMove(source: readonly SourceColumn[], target: readonly TargetColumn[]): MovedTable[] {
  const name = ({ table, column }: { table: string; column: string }): string => `${table}.${column}`
  const [there, here] = [source, target].map(columns => new Set(columns.map(name)))
  const single = [...source, ...target].map(name).filter(column => !(there?.has(column) && here?.has(column)))
  if (single.length > 0) {
    throw differs(`${single.join(', ')} in one of the two only: give Waybill a database of its own, an empty one`)
  }
  const keys = new Map(source.map(column => [name(column), column.key]))
  const tables = [...new Set(target.map(({ table }) => table))].filter(table => !OF_KNEX.has(table))
  return tables.map(table => {
    const own = target.filter(column => column.table === table)
    const place = (column: string): number => keys.get(`${table}.${column}`) ?? 0
    const names = own.map(({ column }) => column)
    return {
      name: table,
      columns: Object.fromEntries(own.map(({ column, type }) => [column, movedType(`${table}.${column}`, type)])),
      key: names.filter(column => place(column) > 0).sort((a, b) => place(a) - place(b)),
    }
  })
}

function movedType(column: string, type: string): MovedType {
  const known = TYPES.find(name => name === type)
  if (known === undefined) throw differs(`${column} is ${type}, which is not moved: this is an error of Waybill`)
  return known
}

function differs(what: string): WaybillError {
  return new WaybillError('SCHEMA_DIFFERS', `the databases have different schemas: ${what}`, { status: 400 })
}

/** A row of SQLite as PostgreSQL has it. Throws 400 ROW_REFUSED, which says of what row, where there is no such thing. */
export function movedRow(table: MovedTable, row: Readonly<Record<string, unknown>>): Record<string, Binding> {
  const moved: Record<string, Binding> = {}
  for (const [column, type] of Object.entries(table.columns)) {
    const value = movedValue(row[column], type)
    if (value === undefined) throw refused(table, row, column, type)
    moved[column] = value
  }
  return moved
}

/** Undefined: PostgreSQL has no such value in a column of this type. */
function movedValue(value: unknown, type: MovedType): Binding | undefined {
  if (value === null) return null
  if (type === 'boolean') return value === 1 ? true : value === 0 ? false : undefined
  if (type === 'text') return typeof value === 'string' && !value.includes('\0') ? value : undefined
  if (type === 'double precision') return typeof value === 'number' && Number.isFinite(value) ? value : undefined
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) return undefined
  return type === 'bigint' || Math.abs(value) <= INTEGER_MOST ? value : undefined
}

/** Never tells the value, which may be anything. */
function refused(
  table: MovedTable,
  row: Readonly<Record<string, unknown>>,
  column: string,
  type: MovedType,
): WaybillError {
  const what = type === 'text' && typeof row[column] === 'string' ? 'a text with a NUL in it' : `no ${type}`
  const message = `${table.name}, ${keyOf(table, row)}: ${column} is ${what}, which PostgreSQL does not take: correct it and repeat`
  return new WaybillError('ROW_REFUSED', message, { status: 400 })
}

/** For people: `id 17`, `rse_id 3, key tier`. */
export function keyOf(table: MovedTable, row: Readonly<Record<string, unknown>>): string {
  return table.key.map(column => `${column} ${oneLine(String(row[column]), KEY_MOST)}`).join(', ')
}
