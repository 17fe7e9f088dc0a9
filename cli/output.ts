import type { Terminal } from '../shared/runtime/terminal.ts'

export interface Column<T> {
  readonly name: string
  readonly value: (item: T) => string | number | boolean | undefined
}

/** Results: tables and fields for people, JSON for programs. Nothing else goes to standard output. */
export class Output {
  readonly #terminal: Terminal
  readonly json: boolean

  constructor(terminal: Terminal, json: boolean) {
    this.#terminal = terminal
    this.json = json
  }

  /** A list as a table, page by page as it comes, or as one JSON object a line. */
  async list<T>(
    pages: AsyncIterable<readonly T[]> | Iterable<readonly T[]>,
    columns: readonly Column<T>[],
  ): Promise<void> {
    const widths = columns.map(({ name }) => name.length)
    let begun = false
    for await (const items of pages) {
      if (this.json) {
        for (const item of items) this.#line(JSON.stringify(item))
        continue
      }
      const rows = items.map(item => columns.map(({ value }) => printable(value(item))))
      for (const row of rows) {
        row.forEach((cell, index) => {
          widths[index] = Math.max(widths[index] ?? 0, cell.length)
        })
      }
      const head = begun || rows.length === 0 ? [] : [columns.map(({ name }) => name.toUpperCase())]
      for (const row of [...head, ...rows]) this.#line(row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  '))
      begun = begun || rows.length > 0
    }
    if (!begun && !this.json) this.#terminal.err('there are none\n')
  }

  /** One thing: its fields below each other, or its JSON as the server gave it. */
  one<T extends object>(item: T, fields?: (item: T) => Readonly<Record<string, unknown>>): void {
    if (this.json) {
      this.#line(JSON.stringify(item))
      return
    }
    const entries = Object.entries(fields?.(item) ?? item).filter(([, value]) => value !== undefined)
    const width = Math.max(...entries.map(([name]) => name.length))
    for (const [name, value] of entries) this.#line(`${name.padEnd(width)}  ${printable(value)}`)
  }

  /** A sentence for people, the answer for programs. */
  done(sentence: string, answer: object): void {
    this.#line(this.json ? JSON.stringify(answer) : sentence)
  }

  #line(text: string): void {
    this.#terminal.out(`${text.trimEnd()}\n`)
  }
}

function printable(value: unknown): string {
  if (value === undefined || value === null) return '-'
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB']

/** `20.1 MB`: powers of 1000, three digits. */
export function bytesText(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000
    unit += 1
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${UNITS[unit] ?? ''}`
}

const AGES: readonly (readonly [unit: string, seconds: number])[] = [
  ['d', 86_400],
  ['h', 3600],
  ['min', 60],
]

/** `3 d`, `12 min`: of the largest unit that makes two of them, rounded down. */
export function ageText(seconds: number): string {
  const [unit, size] = AGES.find(([, length]) => seconds >= 2 * length) ?? ['s', 1]
  return `${Math.floor(seconds / size)} ${unit}`
}

/** Epoch milliseconds as people write them: UTC, seconds. */
export function timeText(time: number | undefined): string | undefined {
  return time === undefined ? undefined : new Date(time).toISOString().replace(/\.\d+Z$/, 'Z')
}
