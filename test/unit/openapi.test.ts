import { expect } from 'chai'
import { docsPage } from '../../shared/contract/docs-page.ts'
import { openApiDocument } from '../../shared/contract/openapi.ts'
import { ROUTES } from '../../shared/contract/routes.ts'

describe('OpenAPI document', () => {
  const document = openApiDocument()
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )

  it('has one operation for each row of the table', () => {
    expect(operations.map(({ operation }) => operation.operationId).sort()).to.deep.equal(Object.keys(ROUTES).sort())
  })

  it('is the same whenever it is made, and JSON', () => {
    expect(JSON.parse(JSON.stringify(document))).to.deep.equal(openApiDocument())
  })

  it('names every parameter in braces, as required', () => {
    for (const { path, operation } of operations) {
      const inPath = (operation.parameters ?? []).filter(parameter => parameter.in === 'path')
      expect(inPath.map(({ name }) => `{${name}}`)).to.have.members(path.match(/\{\w+\}/g) ?? [])
      expect(inPath.every(({ required }) => required)).to.equal(true)
    }
  })

  it('needs a token for everything but what is public', () => {
    const open = operations.filter(({ operation }) => operation.security?.length === 0)
    expect(open.map(({ path }) => path)).to.have.members(['/livez', '/readyz'])
    expect(document.security).to.deep.equal([{ bearer: [] }])
  })

  it('tells required from optional, and gives defaults, in requests', () => {
    const body = document.paths['/v1/rules']?.post?.requestBody?.content['application/json']?.schema
    expect(body?.required).to.deep.equal(['dids', 'copies', 'expression'])
    expect(body).to.have.nested.property('properties.priority.default', 3)
    expect(body).to.have.property('additionalProperties', false)
    const limit = document.paths['/v1/rules']?.get?.parameters?.find(({ name }) => name === 'limit')
    expect(limit).to.deep.include({ in: 'query', required: false })
  })

  it('says what normalised fields look like in answers', () => {
    const rse = document.paths['/v1/rses/{rse}']?.get?.responses['200']
    expect(rse).to.have.nested.property(
      'content.application/json.schema.properties.protocols.items.properties.url.type',
      'string',
    )
  })
})

describe('documentation page', () => {
  const document = openApiDocument()
  const page = docsPage(document)

  it('shows every operation and loads nothing', () => {
    for (const name of Object.keys(ROUTES)) expect(page.html).to.contain(`<section id="${name}">`)
    expect(page.html).not.to.match(/<script|<link|<img|src=|@import|url\(/)
  })

  it('allows its own style and nothing else', () => {
    expect(page.contentSecurityPolicy).to.match(/^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; /)
  })

  it('escapes what stands in the document', () => {
    const odd = { ...document, info: { ...document.info, title: '<script>alert(1)</script>' } }
    expect(docsPage(odd).html).not.to.contain('<script>')
  })
})
