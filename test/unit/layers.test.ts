import { spawnSync } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { expect } from 'chai'
import { brokenRules, importsOf, PROJECT } from './layers.ts'

describe('who may import whom', () => {
  it('is kept by every module of the project', () => {
    const found = importsOf(PROJECT)
    expect(found.modules).to.include.members(['shared/domain/errors.ts', 'server/app.ts', 'test/unit/layers.test.ts'])
    expect(brokenRules(found)).to.deep.equal([])
  })
})

describe('the checks of the layers themselves', () => {
  let directory: string

  before(async () => {
    directory = await project({
      'shared/domain/name.ts': "import type { Row } from '../../server/row.ts'\nexport type Name = Row\n",
      'shared/storage/get.ts': "export const get = () => import('../oidc/mint.ts')\n",
      'shared/oidc/mint.ts': 'export const mint = 1\n',
      'server/row.ts': "import type { Loop } from '../worker/loop.ts'\nexport type Row = Loop\n",
      'worker/loop.ts': "import type { Knex } from 'knex'\nexport type Loop = Knex\n",
      'attic/old.ts': 'export const old = 1\n',
      'cli/first.ts': "import type { Second } from './second.ts'\nexport type First = Second | undefined\n",
      'cli/second.ts': "import type { First } from './first.ts'\nexport type Second = First[]\n",
      'cli/time.ts': 'export const times = [Date.now(), new Date(), performance.now(), Math.random(), process.env]\n',
      'cli/chance.ts': "import { randomBytes } from 'node:crypto'\nexport const chance = randomBytes(1)\n",
      'cli/said.ts': "console.log('said')\n",
      'shared/runtime/clock.ts': 'export const now = () => Date.now()\n',
    })
  })
  after(() => rm(directory, { recursive: true }))

  it('find forbidden imports, those of types and dynamic ones too, and modules without a room', () => {
    const broken = brokenRules(importsOf(directory)).map(line => line.replace(/\S*node_modules\//, ''))
    expect(broken).to.deep.equal([
      'attic/old.ts stands in no room',
      'server/row.ts may not import worker/loop.ts',
      'shared/domain/name.ts may not import server/row.ts',
      'shared/storage/get.ts may not import shared/oidc/mint.ts',
      'worker/loop.ts may not import knex/types/index.d.ts',
    ])
  })

  it('are not content with nothing to look at', () => {
    expect(brokenRules({ modules: [], imports: [] })).to.deep.equal(['no module was looked at'])
  })

  it('find cycles of types, the clock, chance, the environment and the console outside shared/runtime', () => {
    const biome = join(PROJECT, 'node_modules/@biomejs/biome/bin/biome')
    const run = spawnSync(process.execPath, [biome, 'lint', '--reporter=github', 'cli', 'shared/runtime'], {
      cwd: directory,
      encoding: 'utf8',
    })
    const found = [...run.stdout.matchAll(/title=(\S+?),file=(\S+?),/g)].map(
      ([, rule, file]) => `${relative(directory, file ?? '')} ${rule}`,
    )
    expect(found.sort()).to.deep.equal([
      'cli/chance.ts lint/style/noRestrictedImports',
      'cli/first.ts lint/suspicious/noImportCycles',
      'cli/said.ts lint/suspicious/noConsole',
      'cli/second.ts lint/suspicious/noImportCycles',
      'cli/time.ts lint/style/noProcessEnv',
      'cli/time.ts plugin',
      'cli/time.ts plugin',
      'cli/time.ts plugin',
      'cli/time.ts plugin',
      'cli/time.ts plugin',
    ])
  })
})

/** A project of a few files under the rules of this one. */
async function project(files: Readonly<Record<string, string>>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'waybill-layers-'))
  for (const name of ['biome.json', 'runtime-only.grit', '.gitignore'])
    await cp(join(PROJECT, name), join(directory, name))
  await symlink(join(PROJECT, 'node_modules'), join(directory, 'node_modules'))
  const options = {
    target: 'es2023',
    module: 'nodenext',
    types: [],
    skipLibCheck: true,
    allowImportingTsExtensions: true,
  }
  await writeFile(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions: { ...options, noEmit: true } }))
  for (const [path, text] of Object.entries(files)) {
    await mkdir(join(directory, dirname(path)), { recursive: true })
    await writeFile(join(directory, path), text)
  }
  return directory
}
