import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { z } from 'zod'

const lockSchema = z.object({
  packages: z.record(z.string(), z.object({ optionalDependencies: z.record(z.string(), z.string()).optional() })),
})

/**
 * A registry mirror that lacks the builds for other platforms makes `npm install` drop them from the lock file, and then
 * `npm ci` refuses it everywhere. They must stay in it, with or without a checksum.
 */
describe('package-lock.json', () => {
  it('names every optional dependency, for all platforms', () => {
    const { packages } = lockSchema.parse(JSON.parse(readFileSync('package-lock.json', 'utf8')))
    const wanted = Object.values(packages).flatMap(entry => Object.keys(entry.optionalDependencies ?? {}))
    expect(wanted).to.include('@biomejs/cli-darwin-arm64')
    const names = new Set(Object.keys(packages).map(path => path.split('node_modules/').at(-1)))
    expect(wanted.filter(name => !names.has(name))).to.deep.equal([])
  })
})
