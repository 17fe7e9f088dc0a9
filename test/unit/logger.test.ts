import { expect } from 'chai'
import { systemClock } from '../../shared/runtime/clock.ts'
import { createLogger } from '../../shared/runtime/logger.ts'

function logged(fields: object): Record<string, unknown> {
  const lines: string[] = []
  createLogger('test', 'info', { write: line => void lines.push(line) }).info(fields, 'said')
  expect(lines).to.have.length(1)
  return JSON.parse(lines[0] ?? '') as Record<string, unknown>
}

describe('the log', () => {
  it('blanks what is called like a credential, among the fields and in their objects', () => {
    const { token, request, list } = logged({
      token: 'T',
      request: { authorization: 'Bearer T', access_token: null, path: '/f' },
      list: ['kept'],
    })
    expect(token).to.equal('[secret]')
    expect(request).to.deep.equal({ authorization: '[secret]', access_token: '[secret]', path: '/f' })
    expect(list).to.deep.equal(['kept'])
  })

  it("blanks an error's fields, and tells the rest of it", () => {
    const error = Object.assign(new TypeError('no such thing'), { client_secret: 'S', code: 'GONE' })
    const { err } = logged({ err: error })
    expect(err).to.include({ type: 'TypeError', message: 'no such thing', client_secret: '[secret]', code: 'GONE' })
    expect(err).to.have.property('stack').that.includes('logger.test')
    expect(error.client_secret).to.equal('S')
  })

  it('leaves what it was given as it was', () => {
    const fields = { request: { token: 'T' } }
    logged(fields)
    expect(fields).to.deep.equal({ request: { token: 'T' } })
  })

  it('tells the time to the millisecond, in UTC', () => {
    const before = systemClock.now()
    const { time } = logged({})
    expect(time).to.match(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    expect(Date.parse(String(time))).to.be.within(before, systemClock.now())
  })
})
