/**
 * What an admin writes to match a token's claims: plain text, in which `*` stands for one or more characters of one segment (none
 * of `/` and `:`, which part groups and entitlements), and `**`, at the end only, for one or more of any. Everything else
 * stands for itself, and all of the claim must match. No regular expressions: the text comes from outside, and there is no such pattern
 * that takes long with some text, nor one in which a dot that was meant as a dot matches more.
 */

export const LONGEST_PATTERN = 300
const MOST_WILDCARDS = 4

/** `undefined` when it is a pattern, else the sentence that says why not. */
export function checkPattern(pattern: string): string | undefined {
  if (pattern === '') return 'a pattern must not be empty'
  if (pattern.length > LONGEST_PATTERN) {
    return `a pattern has at most ${LONGEST_PATTERN} characters; this one has ${pattern.length}`
  }
  if (/\*\*./.test(pattern)) return '`**` stands at the end of a pattern only: what comes after it would be guessed'
  if (wildcardsOf(pattern) > MOST_WILDCARDS) return `a pattern has at most ${MOST_WILDCARDS} wildcards`
  return undefined
}

export function wildcardsOf(pattern: string): number {
  return pattern.match(/\*+/g)?.length ?? 0
}

/** What the wildcards stand for, each the shortest that will do from left to right; undefined when it does not match. */
export function matchPattern(pattern: string, text: string): string[] | undefined {
  const open = pattern.endsWith('**')
  const [first = '', ...parts] = (open ? pattern.slice(0, -2) : pattern).split('*')
  if (!text.startsWith(first)) return undefined
  const captures: string[] = []
  let at = first.length
  // The first place of each part will do: no later one leaves more to those that follow. A part with a separator has but one.
  for (const [i, part] of parts.entries()) {
    const isEnd = !open && i === parts.length - 1
    const found = isEnd ? text.length - part.length : text.indexOf(part, at + 1)
    const captured = text.slice(at, found)
    if (found <= at || !text.startsWith(part, found) || /[/:]/.test(captured)) return undefined
    captures.push(captured)
    at = found + part.length
  }
  if (!open) return at === text.length ? captures : undefined
  return at < text.length ? [...captures, text.slice(at)] : undefined
}

/** `{1}` in `template` is the first capture. */
export function fillTemplate(template: string, captures: readonly string[]): string {
  return template.replace(/\{(\d)\}/g, (_, number) => captures[Number(number) - 1] ?? '')
}

/** The numbers of the captures that a template names. */
export function capturesNamed(template: string): number[] {
  return [...template.matchAll(/\{(\d)\}/g)].map(([, number]) => Number(number))
}
