import { isDeepStrictEqual } from 'node:util'
import { type ContractSnapshot, contractFaults, type RowSnapshot } from './compatibility.ts'
import { type JsonSchema, jsonSchema } from './openapi.ts'
import type { Route } from './route.ts'
import { workerRoutes } from './routes/worker.ts'
import { WORKER_CONTRACT } from './worker-contract.ts'

/** The worker's rows as they are now, without the words for people. */
export function workerSnapshot(): ContractSnapshot {
  const rows: [string, Route][] = Object.entries(workerRoutes)
  return { version: WORKER_CONTRACT, rows: Object.fromEntries(rows.map(([name, row]) => [name, rowSnapshot(row)])) }
}

function rowSnapshot({ method, path, status, params, body, answer }: Route): RowSnapshot {
  return {
    method,
    path,
    status,
    ...(params === undefined ? {} : { params: bare(jsonSchema(params, 'input')) }),
    ...(body === undefined ? {} : { body: bare(jsonSchema(body, 'input')) }),
    answer: bare(jsonSchema(answer, 'output')),
  }
}

const FOR_PEOPLE = new Set(['description', 'example'])

/** A property may have the name of a keyword: only keywords go. */
function bare(schema: JsonSchema): JsonSchema {
  const each = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(each)
    return typeof value === 'object' && value !== null ? bare(value as JsonSchema) : value
  }
  const entries = Object.entries(schema).filter(([keyword]) => !FOR_PEOPLE.has(keyword))
  return Object.fromEntries(
    entries.map(([keyword, value]) => {
      if (keyword !== 'properties') return [keyword, each(value)]
      const properties = Object.entries(value as Record<string, JsonSchema>)
      return [keyword, Object.fromEntries(properties.map(([name, property]) => [name, bare(property)]))]
    }),
  )
}

export function snapshotPath(version: number): string {
  return `docs/contract/worker-v${version}.json`
}

export interface SnapshotFacts {
  readonly current: ContractSnapshot
  /** The newest version that a release has; 0: none. */
  readonly released: number
  /** What was committed for the current version. */
  readonly stored: ContractSnapshot | undefined
  /** What was committed for the version before it. */
  readonly previous: ContractSnapshot | undefined
}

/**
 * What is wrong with the contract, a sentence each that says what to do. That a version which no release has is not yet
 * written down, or was written down otherwise, is not: it is written anew.
 */
export function snapshotFaults({ current, released, stored, previous }: SnapshotFacts): string[] {
  const { version } = current
  if (version <= released && !isDeepStrictEqual(stored, current)) {
    return [
      `the worker’s rows are not those of version ${version}, which is released: raise WORKER_CONTRACT in shared/contract/worker-contract.ts to ${version + 1}, run npm run documents, and commit ${snapshotPath(version + 1)}; ${snapshotPath(version)} stays as it was`,
    ]
  }
  if (version === 1) return []
  if (previous === undefined)
    return [`${snapshotPath(version - 1)} is missing: a server serves workers of that version too`]
  return contractFaults(previous, current).map(
    fault => `workers of version ${version - 1} could not go on with this server: ${fault}`,
  )
}
