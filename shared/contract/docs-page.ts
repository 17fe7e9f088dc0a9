import { createHash } from 'node:crypto'
import type { JsonSchema, OpenApiDocument, Operation, Parameter } from './openapi.ts'

export interface DocsPage {
  readonly html: string
  /** Allows the page's own style, by its hash, and nothing else at all. */
  readonly contentSecurityPolicy: string
}

const STYLE = `
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); --soft: color-mix(in srgb, currentColor 6%, transparent) }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line) }
h3 { margin: 2.5rem 0 .2rem }
code, h3 { font-family: ui-monospace, monospace }
h3 b { display: inline-block; min-width: 4.5em }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
td, th { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line) }
td:first-child { white-space: nowrap }
h4 { margin: 1rem 0 .2rem; font-size: .9rem; font-weight: 600 }
p { margin: .3rem 0 }
nav { columns: 3 14rem; font-size: .9rem }
nav ul { list-style: none; padding: 0; margin: 0 0 .8rem; break-inside: avoid }
.scroll { overflow-x: auto; background: var(--soft); padding: 0 .6rem; border-radius: .3rem }
`

/** The OpenAPI document for people: one page without scripts, that loads nothing. */
export function docsPage(document: OpenApiDocument): DocsPage {
  const tags = document.tags.map(({ name }) => name)
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${text(document.info.title)} API</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${text(document.info.title)} API</h1>
<p>${prose(document.info.description)}</p>
<p>Send a token for this server’s audience: <code>Authorization: Bearer …</code>. Times are epoch milliseconds, sizes are bytes. Lists are paged: give <code>next</code> of one page as <code>cursor</code> of the following one.
The same as an OpenAPI 3.1 document: <a href="/openapi.json">/openapi.json</a>.</p>
<nav>${tags.map(tag => contentsOf(document, tag)).join('')}</nav>
${tags.map(tag => chapter(document, tag)).join('\n')}
<h2 id="problem">Errors</h2>
<p>Every refusal and failure is a problem document, <code>application/problem+json</code>.</p>
${schemaTable(document.components.schemas.Problem ?? {})}
</body>
</html>
`
  const hash = createHash('sha256').update(STYLE).digest('base64')
  return { html, contentSecurityPolicy: `default-src 'none'; style-src 'sha256-${hash}'; frame-ancestors 'none'` }
}

interface Row {
  readonly method: string
  readonly path: string
  readonly operation: Operation
}

function rowsOf(document: OpenApiDocument, tag: string): Row[] {
  return Object.entries(document.paths)
    .flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
    )
    .filter(({ operation }) => operation.tags.includes(tag))
}

function contentsOf(document: OpenApiDocument, tag: string): string {
  const links = rowsOf(document, tag).map(
    ({ operation }) => `<li><a href="#${text(operation.operationId)}">${text(operation.operationId)}</a></li>`,
  )
  return `<ul><li><strong>${text(tag)}</strong></li>${links.join('')}</ul>`
}

function chapter(document: OpenApiDocument, tag: string): string {
  return `<h2>${text(tag)}</h2>\n${rowsOf(document, tag).map(section).join('\n')}`
}

function section({ method, path, operation }: Row): string {
  const body = operation.requestBody?.content['application/json']?.schema
  const [status, answer] = Object.entries(operation.responses)[0] ?? ['', undefined]
  const answered = answer !== undefined && 'content' in answer ? answer.content['application/json']?.schema : undefined
  return `<section id="${text(operation.operationId)}">
<h3><b>${method}</b> ${text(path)}</h3>
<p><strong>${prose(operation.summary)}.</strong> ${prose(operation.description)}</p>
${operation.parameters === undefined ? '' : `<h4>Parameters</h4>${table(operation.parameters.map(parameterCells))}`}
${body === undefined ? '' : `<h4>Body</h4>${schemaTable(body)}`}
<h4>Answer ${text(status)}</h4>${schemaTable(answered ?? {})}
</section>`
}

type Cells = readonly [name: string, kind: string, what: string]

function parameterCells({ name, in: place, required, schema, description = '' }: Parameter): Cells {
  return [
    name,
    `${kindOf(schema)}, ${place}${required ? '' : ', optional'}`,
    [description, ...limitsOf(schema)].join(' '),
  ]
}

function schemaTable(schema: JsonSchema): string {
  const cells = fields(schema, '')
  return cells.length === 0 ? '<p>An empty object.</p>' : table(cells)
}

function table(cells: readonly Cells[]): string {
  const lines = cells.map(
    ([name, kind, what]) => `<tr><td><code>${text(name)}</code></td><td>${text(kind)}</td><td>${prose(what)}</td></tr>`,
  )
  return `<div class="scroll"><table>${lines.join('\n')}</table></div>`
}

/** Every field of a schema by its path: `files[].bytes`. Variants are listed one after the other. */
function fields(schema: JsonSchema, path: string): Cells[] {
  const variants = alternatives(schema)
  if (variants.some(variant => isSchema(variant.properties))) {
    return variants.flatMap(variant => fields({ ...variant, anyOf: undefined, oneOf: undefined }, path))
  }
  if (isSchema(schema.items)) return fields(schema.items, `${path}[]`)
  const required = Array.isArray(schema.required) ? schema.required : []
  return Object.entries(isSchema(schema.properties) ? schema.properties : {}).flatMap(([name, field]) => {
    if (!isSchema(field)) return []
    const here = path === '' ? name : `${path}.${name}`
    const description = typeof field.description === 'string' ? field.description : ''
    const kind = `${kindOf(field)}${required.includes(name) ? '' : ', optional'}`
    return [[here, kind, [description, ...limitsOf(field)].join(' ')] as const, ...fields(field, here)]
  })
}

function alternatives(schema: JsonSchema): JsonSchema[] {
  const list = schema.anyOf ?? schema.oneOf
  return Array.isArray(list) ? list.filter(isSchema) : []
}

function kindOf(schema: JsonSchema): string {
  if ('const' in schema) return JSON.stringify(schema.const)
  if (Array.isArray(schema.enum)) return schema.enum.map(value => JSON.stringify(value)).join(' | ')
  const variants = alternatives(schema)
  if (variants.length > 0) return [...new Set(variants.map(kindOf))].join(' | ')
  if (schema.type === 'array') return `list of ${isSchema(schema.items) ? kindOf(schema.items) : 'anything'}`
  return typeof schema.type === 'string' ? schema.type : 'anything'
}

function limitsOf(schema: JsonSchema): string[] {
  const limits: [string, unknown][] = [
    ['at least', schema.minimum],
    // The largest whole number of JavaScript is no limit worth a word.
    ['at most', schema.maximum === Number.MAX_SAFE_INTEGER ? undefined : schema.maximum],
    ['items at least', schema.minItems],
    ['items at most', schema.maxItems],
    ['characters at most', schema.maxLength],
    ['default', schema.default],
    ['e.g.', schema.example],
  ]
  return limits
    .filter(([, value]) => value !== undefined)
    .map(([word, value]) => `${word} \`${JSON.stringify(value)}\`;`)
}

function isSchema(value: unknown): value is JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function text(value: string): string {
  return value.replace(/[&<>"']/g, character => ENTITIES[character] ?? '')
}

/** Text in which backticks stand for code. */
function prose(value: string): string {
  return text(value).replace(/`([^`]*)`/g, '<code>$1</code>')
}
