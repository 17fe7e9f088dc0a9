import { pino } from 'pino'

/**
 * Structured logs, one JSON object a line, on standard error. Levels: `error` (none in a healthy system: somebody must
 * act), `warn` (worked around, look when you can), `info` (a life event), `debug`.
 */
export interface Logger {
  error(fields: object, message: string): void
  warn(fields: object, message: string): void
  info(fields: object, message: string): void
  debug(fields: object, message: string): void
  child(fields: object): Logger
}

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Keys whose values are blanked whatever is logged: the last line of defence behind `Secret`. */
const BLANKED = ['authorization', 'access_token', 'refresh_token', 'subject_token', 'client_secret', 'token']

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
      redact: { paths: BLANKED.flatMap(key => [key, `*.${key}`]), censor: '[secret]' },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    destination,
  )
}

function standardError(): LogDestination {
  return pino.destination({ fd: 2, sync: true })
}

export const silentLogger: Logger = createLogger('silent', 'silent')
