import process from 'node:process'
import { pino, stdSerializers } from 'pino'

/**
 * Structured logs, one JSON object a line, on standard error. Levels: `error` (none in a healthy system: somebody must
 * act), `warn` (worked around, look when you can), `info` (a life event), `debug`.
 */
export interface Logger {
  error(fields: object, message: string): void
  warn(fields: object, message: string): void
  info(fields: object, message: string): void
  debug(fields: object, message: string): void
}

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Keys whose values are blanked whatever is logged: the last line of defence behind `Secret`. */
const BLANKED = ['authorization', 'access_token', 'refresh_token', 'subject_token', 'client_secret', 'token']
const CENSOR = '[secret]'

/** Where the lines go, each with its end of line. */
export interface LogDestination {
  write(line: string): void
}

export function createLogger(name: string, level: LogLevel, destination: LogDestination = standardError()): Logger {
  return pino(
    {
      name,
      level,
      base: { name },
      redact: { paths: BLANKED, censor: CENSOR },
      formatters: { log: blankedBelow },
      serializers: { err: error => blanked(stdSerializers.err(error)) },
      timestamp: timeField,
    },
    destination,
  )
}

/**
 * The same keys in the fields' own objects. Not by paths `*.token`, for which pino takes every line apart: that was a quarter of
 * what a worker allocates for a transfer.
 */
function blankedBelow(fields: Record<string, unknown>): Record<string, unknown> {
  let copy: Record<string, unknown> | undefined
  for (const [key, value] of Object.entries(fields)) {
    // An error's fields show when it is serialised.
    if (value instanceof Error) continue
    const shown = blanked(value)
    if (shown === value) continue
    copy ??= { ...fields }
    copy[key] = shown
  }
  return copy ?? fields
}

function blanked(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || !BLANKED.some(key => key in value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, own]) => [key, BLANKED.includes(key) ? CENSOR : own]))
}

/** Of the present second, up to its point. */
let second = { at: Number.NaN, text: '' }

/** As `toISOString` has it, which takes longer than all else of a line. */
function timeField(): string {
  const now = Date.now()
  const at = Math.floor(now / 1000)
  if (at !== second.at) second = { at, text: new Date(at * 1000).toISOString().slice(0, -4) }
  return `,"time":"${second.text}${String(now % 1000).padStart(3, '0')}Z"`
}

/** What is logged in one turn of the event loop is written at its end in one piece: a busy worker logs a thousand lines a second. */
function standardError(): LogDestination {
  const destination = pino.destination({ fd: 2, sync: true })
  let lines = ''
  const flush = (): void => {
    if (lines !== '') destination.write(lines)
    lines = ''
  }
  // What ends the process comes before the turn's end.
  process.once('exit', flush)
  return {
    write(line) {
      if (lines === '') setImmediate(flush)
      lines += line
    },
  }
}

export const silentLogger: Logger = createLogger('silent', 'silent')
