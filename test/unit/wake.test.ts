import { expect } from 'chai'
import { Wake } from '../../server/wake.ts'

describe('waits that are cut short', () => {
  it('all at once, or who has waited longest', () => {
    const wake = new Wake()
    const [first, second, third] = [wake.listen('queue'), wake.listen('queue'), wake.listen('queue')]
    const woken = () => [first, second, third].map(({ signal }) => signal.aborted)
    wake.notifyOne('queue')
    expect(woken()).to.deep.equal([true, false, false])
    second.release()
    wake.notifyOne('queue')
    expect(woken()).to.deep.equal([true, false, true])
    const [fourth, fifth] = [wake.listen('queue'), wake.listen('queue')]
    wake.notify('queue')
    expect([fourth, fifth].map(({ signal }) => signal.aborted)).to.deep.equal([true, true])
    expect(second.signal.aborted).to.equal(false)
    wake.notifyOne('queue')
  })

  it('for one of each kind: another has no use for what this one could take', () => {
    const wake = new Wake()
    const listening = ['a', 'a', 'b'].map(kind => wake.listen('queue', undefined, kind).signal)
    wake.notifyOne('queue')
    expect(listening.map(({ aborted }) => aborted)).to.deep.equal([true, false, true])
  })

  it('each topic by itself, and every one when the process stops', () => {
    const wake = new Wake()
    const [queue, grants] = [wake.listen('queue'), wake.listen('grants')]
    wake.notifyOne('grants')
    expect([queue, grants].map(({ signal }) => signal.aborted)).to.deep.equal([false, true])
    wake.close()
    expect([queue, wake.listen('rules')].map(({ signal }) => signal.aborted)).to.deep.equal([true, true])
  })
})
