import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { systemClock } from '../../shared/runtime/clock.ts'

const TERMINAL = fileURLToPath(new URL('../../shared/runtime/terminal.js', import.meta.url))
const BYTES = 1_000_000

it('what a command prints is all there, however late it is read', async () => {
  const script = `import { flushed, systemTerminal } from ${JSON.stringify(TERMINAL)}
    systemTerminal.out('x'.repeat(${BYTES}))
    await flushed()
    process.exit(3)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  await systemClock.sleep(300)
  expect(await text(child.stdout)).to.have.length(BYTES)
  expect(await exited).to.deep.equal([3, null])
})
