import { expect } from 'chai'
import { inParallel } from '../../cli/in-parallel.ts'
import { ageText, bytesText, Output, timeText } from '../../cli/output.ts'
import { chunks, pages } from '../../cli/pages.ts'
import { attribute, attributeValue, duration, onOff, wholeNumber } from '../../cli/values.ts'
import { followRule, ProgressLine, progressText } from '../../cli/watch.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Terminal } from '../../shared/runtime/terminal.ts'

interface Recorded extends Terminal {
  readonly said: { out: string; err: string }
}

function recorded(interactive = false): Recorded {
  const said = { out: '', err: '' }
  return {
    said,
    interactive,
    out: text => {
      said.out += text
    },
    err: text => {
      said.err += text
    },
  }
}

/** Time passes only by sleeping. */
function sleptClock(): Clock {
  let now = 0
  return {
    now: () => now,
    monotonic: () => now,
    sleep: async ms => {
      now += ms
    },
  }
}

describe('command line: how values are written', () => {
  const durations: [string, number][] = [
    ['3600', 3600],
    ['45s', 45],
    ['90m', 5400],
    ['12h', 43_200],
    ['7d', 604_800],
    ['2w', 1_209_600],
  ]
  for (const [text, seconds] of durations) {
    it(`a time ${text} is ${seconds} s`, () => expect(duration(text)).to.equal(seconds))
  }
  for (const text of ['', 'd', '1.5h', '-1', '7 d', '7D', '1y']) {
    it(`refuses the time ${JSON.stringify(text)}`, () => expect(() => duration(text)).to.throw('a time is wanted'))
  }
  for (const text of ['', '-1', '1.0', '1e3', ' 1', '9999999999999999']) {
    it(`refuses the whole number ${JSON.stringify(text)}, and says the bounds`, () =>
      expect(() => wholeNumber(text)).to.throw('a whole number is wanted, 0 to 999999999999999'))
  }
  it('reads on and off', () => {
    expect([onOff('on'), onOff('off')]).to.deep.equal([true, false])
    expect(() => onOff('yes')).to.throw('on or off')
  })
  const attributes: [string, string | number | boolean][] = [
    ['true', true],
    ['1', 1],
    ['-2.5', -2.5],
    ['007', '007'],
    ['1e5', '1e5'],
    ['', ''],
    ['de', 'de'],
  ]
  for (const [text, value] of attributes) {
    it(`an attribute ${JSON.stringify(text)} is ${JSON.stringify(value)}`, () =>
      expect(attributeValue(text)).to.equal(value))
  }
  it('gathers attributes, values with "=" too', () => {
    expect(attribute('b=x=y', attribute('a=1'))).to.deep.equal({ a: 1, b: 'x=y' })
    expect(() => attribute('=x')).to.throw('key=value')
  })
  const sizes: [number, string][] = [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.00 kB'],
    [20_100_000, '20.1 MB'],
    [999_600_000, '1.00 GB'],
  ]
  for (const [bytes, text] of sizes) it(`${bytes} bytes are ${text}`, () => expect(bytesText(bytes)).to.equal(text))
  const ages: [number, string][] = [
    [0, '0 s'],
    [119.9, '119 s'],
    [120, '2 min'],
    [7_199, '119 min'],
    [7_200, '2 h'],
    [172_799, '47 h'],
    [1_000_000, '11 d'],
  ]
  for (const [seconds, text] of ages) {
    it(`${seconds} seconds are ${text}`, () => expect(ageText(seconds)).to.equal(text))
  }
  it('writes times in UTC', () => expect(timeText(1_795_000_000_123)).to.equal('2026-11-18T11:06:40Z'))
})

describe('command line: lists', () => {
  it('reads all pages', async () => {
    const asked: unknown[] = []
    const read = async (at: object) => {
      asked.push(at)
      return asked.length === 1 ? { items: [1, 2], next: 'n' } : { items: [3] }
    }
    const seen: number[] = []
    for await (const page of pages(read)) seen.push(...page)
    expect(seen).to.deep.equal([1, 2, 3])
    expect(asked).to.deep.equal([{ limit: 1000 }, { limit: 1000, cursor: 'n' }])
  })

  it('cuts into pieces', () => expect([...chunks([1, 2, 3], 2)]).to.deep.equal([[1, 2], [3]]))

  it('prints a table for people, one object a line for programs', async () => {
    const items = [
      { name: 'a', n: 1 },
      { name: 'long', n: undefined },
    ]
    const columns = [
      { name: 'name', value: (item: (typeof items)[0]) => item.name },
      { name: 'n', value: (item: (typeof items)[0]) => item.n },
    ]
    const people = recorded()
    await new Output(people, false).list([items], columns)
    expect(people.said.out).to.equal('NAME  N\na     1\nlong  -\n')
    const programs = recorded()
    await new Output(programs, true).list([items], columns)
    expect(programs.said.out).to.equal('{"name":"a","n":1}\n{"name":"long"}\n')
  })

  it('says to people that a list is empty, and nothing to programs', async () => {
    const terminal = recorded()
    await new Output(terminal, false).list([[]], [])
    await new Output(terminal, true).list([[]], [])
    expect(terminal.said).to.deep.equal({ out: '', err: 'there are none\n' })
  })

  it('works on several things at a time, and stops beginning new ones after an error', async () => {
    let running = 0
    let most = 0
    const begun: number[] = []
    const work = async (item: number) => {
      begun.push(item)
      running += 1
      most = Math.max(most, running)
      await Promise.resolve()
      running -= 1
      if (item === 3) throw new Error('three')
    }
    await inParallel([1, 2, 4, 5], 2, work)
    expect(most).to.equal(2)
    begun.length = 0
    const error = await inParallel([3, 2, 4, 5, 6, 7], 2, work).then(
      () => undefined,
      reason => reason as unknown,
    )
    expect(error).to.have.property('message', 'three')
    expect(begun).not.to.include(7)
    expect(running).to.equal(0)
  })
})

describe('command line: watching a rule', () => {
  const rule = {
    id: 7,
    did: 'exp:a',
    account: 'alice',
    copies: 1,
    expression: 'A',
    grouping: 'DATASET' as const,
    activity: 'x',
    priority: 3,
    archive: false,
    purgeReplicas: false,
    locked: false,
    state: 'REPLICATING' as const,
    locks: { ok: 5, replicating: 5, stuck: 0 },
    expanded: true,
    createdAt: 0,
    updatedAt: 0,
  }

  it('draws how far it is', () => {
    expect(progressText(rule)).to.equal('rule 7 REPLICATING [##########..........] 5 of 10 replicas')
    const early = { ...rule, expanded: false, locks: { ok: 0, replicating: 0, stuck: 2 } }
    expect(progressText(early)).to.equal('rule 7 REPLICATING [....................] 0 of 2 or more replicas, 2 stuck')
  })

  it('goes on through a server that restarts, and ends when the rule does', async () => {
    const answers = [rule, new HttpFailure('connect', 'GET', new URL('https://a')), { ...rule, state: 'OK' as const }]
    const shown: string[] = []
    const read = async () => {
      const answer = answers.shift()
      if (answer === undefined || answer instanceof Error) throw answer
      return answer
    }
    const last = await followRule({ read, clock: sleptClock(), onProgress: ({ state }) => shown.push(state) })
    expect(last.state).to.equal('OK')
    expect(shown).to.deep.equal(['REPLICATING', 'OK'])
  })

  it('does not wait for ever for a server that is gone', async () => {
    const failure = new HttpFailure('connect', 'GET', new URL('https://a'))
    const read = async () => {
      throw failure
    }
    const error = await followRule({ read, clock: sleptClock(), onProgress: () => undefined }).then(
      () => undefined,
      reason => reason as unknown,
    )
    expect(error).to.equal(failure)
  })

  it('redraws one line for a person', () => {
    const terminal = recorded(true)
    const clock = sleptClock()
    const line = new ProgressLine(terminal, clock)
    line.show('a')
    line.show('b')
    line.end()
    expect(terminal.said.err).to.equal('\r\u001b[2Ka\r\u001b[2Kb\n')
  })

  it('writes a line now and then into a log, the last one always', async () => {
    const terminal = recorded()
    const clock = sleptClock()
    const line = new ProgressLine(terminal, clock)
    for (const text of ['1', '2', '3']) {
      line.show(text)
      await clock.sleep(1200)
    }
    line.show('4')
    line.end()
    expect(terminal.said.err).to.equal('1\n3\n4\n')
  })
})
