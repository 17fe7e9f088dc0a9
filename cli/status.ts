import type { Command } from 'commander'
import { addCommand, type Tools } from './command.ts'

export function addStatusCommand(program: Command, tools: Tools): void {
  addCommand(program, tools, {
    usage: 'status',
    summary: 'show what the installation is doing',
    examples: ['status'],
    run: async ({ client, output }) => {
      const status = await client.status()
      output.one(status, ({ version, rules, transfers, grants, tokenRequests }) => ({
        version,
        rules: countsText(rules),
        transfers: countsText(transfers),
        grants: countsText(grants),
        tokens: countsText(tokenRequests),
      }))
      if (output.json) return
      await output.list(
        [status.workers],
        [
          { name: 'worker', value: item => item.name },
          { name: 'client', value: item => item.client },
          { name: 'active', value: item => item.active },
          { name: 'for', value: item => `${Math.round(item.sinceSeconds)} s` },
        ],
      )
    },
  })
}

function countsText(counts: Readonly<Record<string, number>>): string {
  const texts = Object.entries(counts).map(([name, count]) => `${count} ${name}`)
  return texts.length === 0 ? 'none' : texts.join(', ')
}
