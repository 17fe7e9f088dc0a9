import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { Histogram, type Registry } from 'prom-client'
import { parse } from 'yaml'
import { z } from 'zod'
import { openSqlite } from '../../server/database/sqlite.ts'
import { createServerMetrics } from '../../server/metrics.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { createRegistry } from '../../shared/runtime/metrics.ts'
import { workerMetrics } from '../../worker/metrics.ts'
import { requireComponents } from '../interop/components.ts'
import { PROJECT } from './layers.ts'

const target = z.object({ expr: z.string().min(1) })
const panel = z.object({ title: z.string(), type: z.string(), targets: z.array(target).optional() })
const dashboardSchema = z.object({
  panels: z.array(panel).min(1),
  templating: z.object({
    list: z.array(z.object({ name: z.string(), type: z.string(), definition: z.string().optional() })),
  }),
})
const rulesSchema = z.object({
  groups: z.array(z.object({ rules: z.array(z.object({ alert: z.string(), expr: z.string() })).min(1) })).min(1),
})

describe('the dashboard and the alerts', () => {
  let directory: string
  /** The label names of each series that server or worker give out. */
  let series: Map<string, ReadonlySet<string>>
  let expressions: { where: string; expr: string }[]

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'waybill-grafana-'))
    const database = openSqlite(join(directory, 'empty.sqlite'))
    const worker = createRegistry()
    workerMetrics(worker)
    series = seriesOf([createServerMetrics(database, systemClock).registry, worker])
    await database.close()
    expressions = [...(await panelExpressions()), ...(await alertExpressions())]
  })
  after(() => rm(directory, { recursive: true }))

  it('use only figures that server or worker have', () => {
    const unknown = expressions.flatMap(({ where, expr }) =>
      metricsIn(expr)
        .filter(name => !series.has(name))
        .map(name => `${where}: ${name}`),
    )
    expect(unknown).to.deep.equal([])
    expect(new Set(expressions.flatMap(({ expr }) => metricsIn(expr))).size).to.be.greaterThan(20)
  })

  it('use only labels that those figures have', () => {
    const unknown = expressions.flatMap(({ where, expr }) => {
      const known = new Set(['instance', 'job', ...metricsIn(expr).flatMap(name => [...(series.get(name) ?? [])])])
      return labelsIn(expr)
        .filter(label => !known.has(label))
        .map(label => `${where}: ${label}`)
    })
    expect(unknown).to.deep.equal([])
  })

  it('are ones that Prometheus can read', async function () {
    requireComponents(this, ['prometheus'])
    const rules = expressions.map(({ expr }, i) => ({ record: `panel:${i}`, expr: withoutVariables(expr) }))
    const file = join(directory, 'panels.rules.yml')
    await writeFile(file, JSON.stringify({ groups: [{ name: 'panels', rules }] }))
    expect(promtool('rules', file)).to.contain(`${rules.length} rules found`)
    expect(promtool('config', join(PROJECT, 'grafana/prometheus/prometheus.yml'))).to.contain('SUCCESS')
  })

  it('know an unknown figure and an unknown label when they see one', () => {
    expect(metricsIn('sum by (rse) (rate(waybill_nothing_total{code="X"}[5m])) / waybill_other')).to.deep.equal([
      'waybill_nothing_total',
      'waybill_other',
    ])
    expect(labelsIn('sum by (rse, le) (rate(waybill_nothing_total{code="X",a=~"b"}[5m]))')).to.have.members([
      'rse',
      'le',
      'code',
      'a',
    ])
  })
})

function seriesOf(registries: readonly Registry[]): Map<string, ReadonlySet<string>> {
  const found = new Map<string, ReadonlySet<string>>()
  for (const metric of registries.flatMap(registry => registry.getMetricsAsArray())) {
    const labels = new Set('labelNames' in metric ? (metric.labelNames as string[]) : [])
    if (metric instanceof Histogram) {
      for (const part of ['bucket', 'sum', 'count']) found.set(`${metric.name}_${part}`, new Set([...labels, 'le']))
    } else found.set(metric.name, labels)
  }
  return found
}

async function panelExpressions(): Promise<{ where: string; expr: string }[]> {
  const text = await readFile(join(PROJECT, 'grafana/dashboards/waybill.json'), 'utf8')
  const dashboard = dashboardSchema.parse(JSON.parse(text))
  const panels = dashboard.panels.filter(({ type }) => type !== 'row')
  const queries = panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ where: title, expr })))
  const variables = dashboard.templating.list.flatMap(({ name, definition }) => {
    const query = /^label_values\((.+), (\w+)\)$/.exec(definition ?? '')
    return query === null ? [] : [{ where: `variable ${name}`, expr: `sum by (${query[2]}) (${query[1]})` }]
  })
  expect(panels.map(({ targets }) => targets?.length ?? 0)).to.not.include(0)
  expect(variables).to.have.length(2)
  return [...queries, ...variables]
}

async function alertExpressions(): Promise<{ where: string; expr: string }[]> {
  const text = await readFile(join(PROJECT, 'grafana/prometheus/waybill.rules.yml'), 'utf8')
  const { groups } = rulesSchema.parse(parse(text))
  return groups.flatMap(({ rules }) => rules.map(({ alert, expr }) => ({ where: alert, expr })))
}

function metricsIn(expr: string): string[] {
  return expr.match(/\bwaybill_\w+/g) ?? []
}

/** Those that are grouped by, and those that are matched. */
function labelsIn(expr: string): string[] {
  const grouped = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(/, */))
  const matched = [...expr.matchAll(/(\w+)(?:=~|!~|!=|=)"/g)].map(([, label = '']) => label)
  return [...grouped, ...matched]
}

/** Grafana fills these in. */
function withoutVariables(expr: string): string {
  return expr.replaceAll('$__rate_interval', '1m').replace(/\$\w+/g, '.*')
}

function promtool(what: 'rules' | 'config', file: string): string {
  return execFileSync('promtool', ['check', what, file], { encoding: 'utf8' })
}
