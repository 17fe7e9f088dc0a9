import { createHash } from 'node:crypto'
import type { OpenApiDocument } from './openapi.ts'

export interface DocsPage {
  readonly html: string
  readonly contentSecurityPolicy: string
}

export function docsPage(_document: OpenApiDocument): DocsPage {
  return { html: '', contentSecurityPolicy: createHash('sha256').digest('base64') }
}
