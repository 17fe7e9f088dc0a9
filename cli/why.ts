import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { bytesText, timeText } from './output.ts'

type Figures = Answer<Routes['getTransferWhy']>['figures']

/** The figures as people read them, without those that are said already. */
export function figuresText(figures: Figures, said: object = {}): Record<string, string | number | undefined> {
  const entries = Object.entries(figures).filter(([name]) => !(name in said))
  return Object.fromEntries(entries.map(([name, value]) => [name, figureText(name, value)]))
}

function figureText(name: string, value: number | string): string | number | undefined {
  if (typeof value === 'string') return value
  if (name === 'since') return timeText(value)
  return name.startsWith('bytes') ? bytesText(value) : value
}
