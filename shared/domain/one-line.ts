/**
 * Somebody else's words on one line of at most `longest` UTF-16 units, as every database takes them: PostgreSQL refuses NUL and
 * halves of surrogate pairs. Cut between characters, never within one.
 */
export function oneLine(text: string, longest: number): string {
  const line = text.replace(/[\p{Cc}\p{Cs}]+/gu, ' ')
  return line.length <= longest ? line : line.slice(0, longest).replace(/[\uD800-\uDBFF]$/, '')
}
