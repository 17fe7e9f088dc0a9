import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import { Command } from 'commander'
import { addServiceCommands } from '../../bin/services.ts'
import { addPeopleCommands } from '../../cli/program.ts'
import { readServerConfig } from '../../server/config.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { readWorkerConfig } from '../../worker/config.ts'
import { PROJECT } from './layers.ts'

const text = (path: string): Promise<string> => readFile(join(PROJECT, path), 'utf8')

describe('the documentation', () => {
  let pages: { path: string; page: string }[]

  before(async () => {
    const inDocs = (await readdir(join(PROJECT, 'docs'), { recursive: true })).map(name => `docs/${name}`)
    const paths = ['README.md', 'CHANGELOG.md', ...inDocs.filter(path => path.endsWith('.md'))]
    expect(paths.length).to.be.greaterThan(8)
    pages = await Promise.all(paths.map(async path => ({ path, page: await text(path) })))
  })

  it('shows configurations that server and worker take', async () => {
    const example = async (name: string) => ({ name, text: await text(`docs/examples/${name}`) })
    const secret = () => 'secret'
    const server = readServerConfig({ flags: {}, environment: {}, file: await example('server.yaml') }, secret)
    const worker = readWorkerConfig({ flags: {}, environment: {}, file: await example('worker.yaml') }, secret, 'host')
    expect(worker.audience).to.equal(server.audience)
    expect(server.workers.map(({ client }) => client)).to.deep.equal(worker.issuers.map(({ clientId }) => clientId))
  })

  it('links to what is there', () => {
    const missing = pages.flatMap(({ path, page }) =>
      [...page.matchAll(/\]\(([^)#:]+)\)/g)]
        .map(([, target = '']) => join(dirname(path), target))
        .filter(target => !existsSync(join(PROJECT, target)))
        .map(target => `${path}: ${target}`),
    )
    expect(missing).to.deep.equal([])
  })

  it('calls commands and options that there are', () => {
    const program = new Command('waybill')
    addServiceCommands(program)
    const terminal = { out: () => {}, err: () => {}, interactive: false }
    addPeopleCommands(program, { terminal, environment: {}, clock: systemClock, log: silentLogger, userId: 1 })
    const lines = pages.flatMap(({ path, page }) => commandsIn(page).map(line => ({ path, line })))
    expect(lines.length).to.be.greaterThan(20)
    const unknown = lines.flatMap(({ path, line }) =>
      faultsOf(program, line).map(fault => `${path}: ${line}: ${fault}`),
    )
    expect(unknown).to.deep.equal([])
    expect(faultsOf(program, 'rse brew SITE-A --strong')).to.deep.equal(['no command brew', 'no option --strong'])
  })
})

/** What follows `waybill` in code blocks and between backticks, continued lines joined. */
function commandsIn(page: string): string[] {
  const joined = page.replace(/\\\n\s+/g, ' ')
  const blocks = [...joined.matchAll(/^ {4}(?:npx )?waybill (.+)$/gm)]
  const inline = [...joined.matchAll(/`(?:npx )?waybill ([^`]+)`/g)]
  return [...blocks, ...inline].map(([, line = '']) => line.trim())
}

function faultsOf(program: Command, line: string): string[] {
  const words = line.split(/\s+/)
  const faults: string[] = []
  let command = program
  for (const word of words) {
    // `worker` runs one, and has commands of its own.
    if (command.commands.length === 0 || word.startsWith('-')) break
    const next = command.commands.find(child => child.name() === word)
    if (next === undefined) {
      faults.push(`no command ${word}`)
      break
    }
    command = next
  }
  const known = new Set(['--help', '--json', ...command.options.map(option => option.long)])
  for (const word of words) if (word.startsWith('--') && !known.has(word)) faults.push(`no option ${word}`)
  return faults
}
