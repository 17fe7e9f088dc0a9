import { expect } from 'chai'
import { oneLine } from '../../shared/domain/one-line.ts'

describe('words on one line', () => {
  const emoji = '\u{1F4BE}'
  const cases: [string, string, string][] = [
    ['that fit stay', 'größer', 'größer'],
    ['are cut', 'x'.repeat(11), 'x'.repeat(10)],
    ['are not cut within a character', `${'x'.repeat(9)}${emoji}`, 'x'.repeat(9)],
    ['are cut behind one', `${'x'.repeat(8)}${emoji}x`, `${'x'.repeat(8)}${emoji}`],
    ['have no NUL and no line ends', 'a\u0000b\r\nc', 'a b c'],
    ['have no half characters', `a\ud83db\udcbec${emoji}`, `a b c${emoji}`],
  ]
  for (const [what, text, line] of cases) it(what, () => expect(oneLine(text, 10)).to.equal(line))
})
