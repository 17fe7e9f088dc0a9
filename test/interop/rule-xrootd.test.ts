import { expect } from 'chai'
import { systemTerminal } from '../../shared/runtime/terminal.ts'
import { requireComponents } from './components.ts'
import { DATASETS, planFiles, readTree, type StoredFile } from './file-set.ts'
import { type RuleStage, rateOf, startRuleStage } from './rule-stage.ts'

const FILES = 1_000
const CONTAINER = 'exp:all-of-it'

describe('a rule between real XRootD servers: 1,000 files, 1 GB', function () {
  this.timeout(180_000)
  let stage: RuleStage
  let placed: Map<string, StoredFile>
  const directories = new Map<string, string>()

  before(async function () {
    requireComponents(this, ['xrootd'])
    stage = await startRuleStage()
    const source = await stage.addRse('XRD-A', stage.near)
    directories.set('pull', await stage.addRse('XRD-PULL', stage.far))
    directories.set('push', await stage.addRse('XRD-PUSH', stage.far, { canPull: false }))
    await stage.link('XRD-A', 'XRD-PULL')
    await stage.link('XRD-A', 'XRD-PUSH')
    await stage.place('XRD-A', source, planFiles(FILES))
    placed = await readTree(source)
    const { client } = stage.house
    await client.addDids({ body: { dids: [{ did: CONTAINER, type: 'CONTAINER' }] } })
    const [scope = '', name = ''] = CONTAINER.split(':')
    await client.attach({ params: { scope, name }, body: { dids: DATASETS } })
  })
  after(() => stage?.stop())

  for (const mode of ['pull', 'push']) {
    it(`brings all of them by ${mode}`, async () => {
      const replication = await stage.replicate(CONTAINER, `XRD-${mode.toUpperCase()}`, 150_000)
      const arrived = await readTree(directories.get(mode) ?? '')
      systemTerminal.err(rateOf(replication, arrived))
      expect(arrived.size).to.equal(FILES)
      expect(Object.fromEntries(arrived)).to.deep.equal(Object.fromEntries(placed))
      // Without a mode is an attempt that sent nothing: its storage was being started again.
      const modes = new Set([...replication.attempts.keys()].map(what => what.split(' ')[0]))
      modes.delete('none')
      expect([...modes]).to.deep.equal([mode])
    })
  }

  it('had nothing to complain of', () => expect(stage.complaints()).to.deep.equal([]))
})
