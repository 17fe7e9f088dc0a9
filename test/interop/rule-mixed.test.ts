import { expect } from 'chai'
import { systemTerminal } from '../../shared/runtime/terminal.ts'
import { requireComponents } from './components.ts'
import { planFiles, readTree, type StoredFile } from './file-set.ts'
import { type RuleStage, rateOf, startRuleStage } from './rule-stage.ts'

const DATASET = 'exp:there/and.back'

/** Each goes on from where an earlier one ended. Who drives, and who only answers, is another pair each time. */
const LEGS = [
  { from: 'XRD-A', to: 'SITE-A', mode: 'pull', what: 'the embedded storage fetches from XRootD' },
  { from: 'SITE-A', to: 'XRD-B', mode: 'pull', what: 'XRootD fetches from the embedded storage' },
  { from: 'XRD-A', to: 'SITE-B', mode: 'push', what: 'XRootD sends to the embedded storage' },
  { from: 'SITE-B', to: 'XRD-C', mode: 'push', what: 'the embedded storage sends to XRootD' },
  { from: 'XRD-B', to: 'SITE-C', mode: 'stream', what: 'through the worker, from XRootD' },
  { from: 'SITE-C', to: 'XRD-D', mode: 'stream', what: 'through the worker, to XRootD' },
] as const

describe('rules between XRootD and embedded storages, there and back: 100 files, 100 MB', function () {
  this.timeout(120_000)
  let stage: RuleStage
  let placed: Map<string, StoredFile>
  const directories = new Map<string, string>()

  before(async function () {
    requireComponents(this, ['xrootd'])
    stage = await startRuleStage()
    const { near, far } = stage
    const passive = { canPull: false }
    const add = async (...rse: Parameters<RuleStage['addRse']>) => {
      const directory = await stage.addRse(...rse)
      directories.set(rse[0], directory)
      return directory
    }
    const source = await add('XRD-A', near)
    await add('SITE-A', 'embedded')
    await add('XRD-B', far, { canPush: false })
    await add('SITE-B', 'embedded', passive)
    await add('XRD-C', far, passive)
    await add('SITE-C', 'embedded', { canPull: false, canPush: false })
    await add('XRD-D', near, passive)
    for (const { from, to } of LEGS) await stage.link(from, to)
    await stage.place('XRD-A', source, planFiles(100, [DATASET]))
    placed = await readTree(source)
  })
  after(() => stage?.stop())

  for (const { from, to, mode, what } of LEGS) {
    it(`${from} to ${to} by ${mode}: ${what}`, async () => {
      const replication = await stage.replicate(DATASET, to, 60_000)
      const arrived = await readTree(directories.get(to) ?? '')
      systemTerminal.err(rateOf(replication, arrived))
      expect(Object.fromEntries(arrived)).to.deep.equal(Object.fromEntries(placed))
      const modes = new Set([...replication.attempts.keys()].map(attempt => attempt.split(' ')[0]))
      expect([...modes]).to.deep.equal([mode])
    })
  }

  it('had nothing to complain of', () => expect(stage.complaints()).to.deep.equal([]))
})
