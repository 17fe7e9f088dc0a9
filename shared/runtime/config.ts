import { parse as parseYaml } from 'yaml'
import { z } from 'zod'
import { WaybillError } from '../domain/errors.ts'
import type { Environment } from './environment.ts'

/**
 * Configuration: a flag, else a `WAYBILL_*` environment variable, else the YAML file, else the default.
 *
 * One name in three spellings: the YAML key `listen.port` is the variable `WAYBILL_LISTEN_PORT` and the flag
 * `--listen-port`; `logLevel` is `WAYBILL_LOG_LEVEL` and `--log-level`. In lists the position is a part of the name:
 * `WAYBILL_VOS_0_ISSUERS_0_CLIENT_SECRET`. A list of plain values is written with commas or spaces between them. Flags are
 * only for what stands outside lists.
 *
 * Whatever is unknown or wrong is told at once and all together. Everything here is pure.
 */
export interface ConfigSources {
  /** By flag name without the dashes: `listen-port`. */
  readonly flags: Readonly<Record<string, string>>
  readonly environment: Environment
  readonly file?: { readonly name: string; readonly text: string }
}

/** `WAYBILL_*` variables that are for the commands of people and for finding the file, never for a schema. */
const OTHER_VARIABLES = new Set(['WAYBILL_URL', 'WAYBILL_CA', 'WAYBILL_CONFIG'])
const PREFIX = 'WAYBILL_'

/** A field whose value must not stand in the file, which people copy about: only the environment, or a file of its own, has it. */
export const SECRET = { secret: true } as const

/** Reads and checks all sources. Throws `CONFIG_INVALID`, whose message has one line for each thing that is wrong. */
export function readConfig<S extends z.ZodType>(schema: S, sources: ConfigSources): z.output<S> {
  const wrong: string[] = []
  const tree = readFileTree(sources, wrong)
  refuseSecrets(schema, tree, [], sources.file?.name ?? '', wrong)
  for (const [name, text] of Object.entries(sources.environment)) {
    if (!name.startsWith(PREFIX) || text === undefined) continue
    const path = pathOf(schema, name.slice(PREFIX.length).split('_'))
    if (path !== undefined) put(tree, path, coerce(fieldAt(schema, path), text))
    else if (!OTHER_VARIABLES.has(name)) wrong.push(`${name}: there is no such setting`)
  }
  for (const [flag, text] of Object.entries(sources.flags)) {
    const path = pathOf(schema, flag.toUpperCase().split('-'))
    if (path === undefined) wrong.push(`--${flag}: there is no such setting`)
    else put(tree, path, coerce(fieldAt(schema, path), text))
  }
  const result = schema.safeParse(tree)
  if (!result.success) wrong.push(...result.error.issues.flatMap(issue => sentences(schema, issue)))
  if (result.success && wrong.length === 0) return result.data
  throw new WaybillError('CONFIG_INVALID', ['the configuration is not usable:', ...wrong].join('\n  '), { status: 400 })
}

/** Settings that can be flags: plain values outside lists, secrets left out. */
export function flagsOf(schema: z.ZodType): { readonly flag: string; readonly description: string }[] {
  return leaves(schema, []).map(({ path, field }) => ({
    flag: snake(path).toLowerCase().replaceAll('_', '-'),
    description: field.description ?? `sets ${path.join('.')}`,
  }))
}

function leaves(schema: z.ZodType, path: string[]): { path: string[]; field: z.ZodType }[] {
  const plain = unwrap(schema)
  if (plain instanceof z.ZodObject) {
    return Object.entries(plain.shape).flatMap(([key, field]) => leaves(field as z.ZodType, [...path, key]))
  }
  if (isSecret(schema) || (plain instanceof z.ZodArray && !isPlainList(plain))) return []
  return [{ path, field: schema }]
}

function readFileTree({ file }: ConfigSources, wrong: string[]): Record<string, unknown> {
  if (file === undefined) return {}
  let tree: unknown
  try {
    tree = parseYaml(file.text) ?? {}
  } catch (error) {
    // The first line says what and where; the rest quotes the file.
    const [what] = (error instanceof Error ? error.message : String(error)).split('\n')
    wrong.push(`${file.name}: not YAML: ${what}`)
    return {}
  }
  if (isRecord(tree)) return tree
  wrong.push(`${file.name}: not a YAML mapping (key: value)`)
  return {}
}

function refuseSecrets(schema: z.ZodType, value: unknown, path: string[], file: string, wrong: string[]): void {
  if (isSecret(schema) && value !== undefined) {
    wrong.push(
      `${path.join('.')}: a secret may not stand in ${file}; give ${path.at(-1)}File, or ${PREFIX}${snake(path)} in the environment`,
    )
    return
  }
  const plain = unwrap(schema)
  if (plain instanceof z.ZodObject && isRecord(value)) {
    for (const [key, field] of Object.entries(plain.shape)) {
      refuseSecrets(field as z.ZodType, value[key], [...path, key], file, wrong)
    }
  }
  if (plain instanceof z.ZodArray && Array.isArray(value)) {
    value.forEach((item, index) => {
      refuseSecrets(plain.element as z.ZodType, item, [...path, String(index)], file, wrong)
    })
  }
}

/** Which setting a name like `VOS_0_ISSUERS_0_URL` means; `undefined` for none. */
function pathOf(schema: z.ZodType, words: readonly string[]): string[] | undefined {
  const plain = unwrap(schema)
  if (words.length === 0) {
    const settable = !(plain instanceof z.ZodObject) && (!(plain instanceof z.ZodArray) || isPlainList(plain))
    return settable ? [] : undefined
  }
  if (plain instanceof z.ZodArray) {
    const [index, ...rest] = words
    const below = /^\d{1,3}$/.test(index ?? '') ? pathOf(plain.element as z.ZodType, rest) : undefined
    return below === undefined || index === undefined ? undefined : [index, ...below]
  }
  if (!(plain instanceof z.ZodObject)) return undefined
  for (const [key, field] of Object.entries(plain.shape)) {
    const own = snake([key]).split('_')
    if (own.some((word, index) => word !== words[index])) continue
    const below = pathOf(field as z.ZodType, words.slice(own.length))
    if (below !== undefined) return [key, ...below]
  }
  return undefined
}

function fieldAt(schema: z.ZodType, path: readonly string[]): z.ZodType {
  const [key, ...rest] = path
  if (key === undefined) return unwrap(schema)
  const plain = unwrap(schema)
  if (plain instanceof z.ZodArray) return fieldAt(plain.element as z.ZodType, rest)
  return fieldAt((plain as z.ZodObject).shape[key] as z.ZodType, rest)
}

/** Text as the kind of value that the field wants; what does not fit stays text, and the schema says what is wrong. */
function coerce(field: z.ZodType, text: string): unknown {
  if (field instanceof z.ZodNumber && /^-?\d+(\.\d+)?$/.test(text)) return Number(text)
  if (field instanceof z.ZodBoolean && /^(true|false)$/.test(text)) return text === 'true'
  if (field instanceof z.ZodArray) return text.split(/[\s,]+/).filter(item => item !== '')
  return text
}

function put(tree: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let place: Record<string, unknown> | unknown[] = tree
  path.forEach((key, depth) => {
    // A list is walked by its positions: they are its keys as well.
    const here = place as Record<string, unknown>
    if (depth === path.length - 1) here[key] = value
    else {
      const there = here[key]
      const next = isRecord(there) || Array.isArray(there) ? there : /^\d+$/.test(path[depth + 1] ?? '') ? [] : {}
      here[key] = next
      place = next as Record<string, unknown> | unknown[]
    }
  })
}

function sentences(schema: z.ZodType, issue: z.core.$ZodIssue): string[] {
  const path = issue.path.map(String)
  if (issue.code === 'unrecognized_keys') return issue.keys.map(key => `${[...path, key].join('.')}: unknown key`)
  if (issue.code !== 'invalid_type' || !issue.message.endsWith('received undefined')) {
    return [`${called(schema, path)}: ${issue.message}`]
  }
  // Of a missing group, every setting that it must have.
  const group = fieldAt(schema, path)
  const missing =
    group instanceof z.ZodObject ? leaves(group, path).filter(({ field }) => !field.isOptional()) : [{ path }]
  return missing.map(setting => `${called(schema, setting.path)}: it is missing`)
}

function called(schema: z.ZodType, path: readonly string[]): string {
  const settable = pathOf(schema, snake(path).split('_')) !== undefined
  return `${path.join('.')}${settable ? ` (${PREFIX}${snake(path)})` : ''}`
}

/** The schema without what only says whether and how a value may be absent. */
function unwrap(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
    return unwrap(schema.unwrap() as z.ZodType)
  }
  if (schema instanceof z.ZodPipe) return unwrap(schema.in as z.ZodType)
  return schema
}

function isSecret(schema: z.ZodType): boolean {
  if (schema.meta()?.secret === true) return true
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault) return isSecret(schema.unwrap() as z.ZodType)
  return schema instanceof z.ZodPipe && isSecret(schema.in as z.ZodType)
}

function isPlainList(list: z.ZodArray): boolean {
  const element = unwrap(list.element as z.ZodType)
  return !(element instanceof z.ZodObject) && !(element instanceof z.ZodArray)
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** `['vault', 'keyFile']` as `VAULT_KEY_FILE`. */
function snake(path: readonly string[]): string {
  return path.map(key => key.replace(/[A-Z]/g, letter => `_${letter}`).toUpperCase()).join('_')
}
