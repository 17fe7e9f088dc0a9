import { InvalidArgumentError } from 'commander'

/** How options are written. What does not fit is a misuse: exit status 2. */

export function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError(`a whole number is wanted, 0 to ${GREATEST}`)
  return Number(text)
}

const GREATEST = 999_999_999_999_999

/** How many at a time: none at all would be for ever. */
export function someNumber(text: string): number {
  const number = wholeNumber(text)
  if (number === 0) throw new InvalidArgumentError('at least 1 is wanted')
  return number
}

/** The first of a few ports. 0: free ones. */
export function firstPort(text: string): number {
  const port = wholeNumber(text)
  if (port > LAST_FIRST_PORT)
    throw new InvalidArgumentError(`a port is wanted, ${LAST_FIRST_PORT} at most: others follow it`)
  return port
}

const LAST_FIRST_PORT = 65_500

export function onOff(text: string): boolean {
  if (text !== 'on' && text !== 'off') throw new InvalidArgumentError('on or off is wanted')
  return text === 'on'
}

const SIZES: Readonly<Record<string, number>> = { '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 }

/** `500T`, `20G`: in bytes, powers of ten as storages are sold. */
export function size(text: string): number {
  const [, digits = '', unit = ''] = /^(\d{1,15})([kMGTP]?)$/.exec(text) ?? []
  const bytes = Number(digits) * (SIZES[unit] ?? 1)
  if (digits === '' || bytes > Number.MAX_SAFE_INTEGER)
    throw new InvalidArgumentError('a size is wanted, e.g. 1000000, 20G, 500T')
  return bytes
}

/** One of a few words, in whatever case. */
export function oneOf<T extends string>(known: readonly T[]): (text: string) => T {
  return text => {
    const found = known.find(word => word.toLowerCase() === text.toLowerCase())
    if (found === undefined) throw new InvalidArgumentError(`one of ${known.join(', ')} is wanted`)
    return found
  }
}

const SECONDS: Readonly<Record<string, number>> = { '': 1, s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 }

/** `3600`, `90m`, `7d`: in seconds. */
export function duration(text: string): number {
  const [, digits = '', unit = ''] = /^(\d{1,10})([smhdw]?)$/.exec(text) ?? []
  if (digits === '') throw new InvalidArgumentError('a time is wanted, e.g. 3600, 90m, 12h, 7d')
  return Number(digits) * (SECONDS[unit] ?? 1)
}

export function several(text: string, before: readonly string[] = []): string[] {
  return [...before, text]
}

export type AttributeValue = string | number | boolean

/** `key=value`, as often as wanted. */
export function attribute(
  text: string,
  before: Readonly<Record<string, AttributeValue>> = {},
): Record<string, AttributeValue> {
  const at = text.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('key=value is wanted')
  return { ...before, [text.slice(0, at)]: attributeValue(text.slice(at + 1)) }
}

/** `true`, `false` and numbers are what they look like; everything else is text. */
export function attributeValue(text: string): AttributeValue {
  if (text === 'true' || text === 'false') return text === 'true'
  return /^-?(0|[1-9]\d{0,14})(\.\d{1,10})?$/.test(text) ? Number(text) : text
}

/** The options that were given: what is absent is left to the server's defaults. */
export function given<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}
