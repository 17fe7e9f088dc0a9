import { z } from 'zod'
import { problem } from './fields.ts'
import { itemOf, NDJSON, type Route, type ScopePermission } from './route.ts'
import { ROUTES } from './routes.ts'

/** As much of an OpenAPI 3.1 document as is written and read here. */
export interface OpenApiDocument {
  readonly openapi: '3.1.0'
  readonly info: { readonly title: string; readonly version: string; readonly description: string }
  readonly tags: readonly { readonly name: string }[]
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>
    readonly responses: Readonly<Record<string, ResponseObject>>
    readonly securitySchemes: Readonly<Record<string, object>>
  }
  readonly security: readonly Readonly<Record<string, readonly string[]>>[]
}

export interface Operation {
  readonly operationId: string
  readonly tags: readonly string[]
  readonly summary: string
  readonly description: string
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: { readonly required: true; readonly content: Content }
  readonly responses: Readonly<Record<string, ResponseObject | { readonly $ref: string }>>
  readonly security?: readonly []
}

export interface Parameter {
  readonly name: string
  readonly in: 'path' | 'query' | 'header'
  readonly required: boolean
  readonly description?: string
  readonly schema: JsonSchema
}

export type JsonSchema = Readonly<Record<string, unknown>>
type Content = Readonly<Record<string, { readonly schema: JsonSchema }>>
interface ResponseObject {
  readonly description: string
  readonly content: Content
}

const WHO: Readonly<Record<Route['role'], string>> = {
  public: 'Nobody needs a token for it.',
  anyone: 'For everybody with a token for this server.',
  member:
    'For everybody with an account, admins and workers. An account sees what is its VO’s, a worker what is of the VOs that its pool serves, an admin everything.',
  manager: 'For data managers: the caller’s identity is mapped to an account.',
  admin: 'For admins.',
  worker: 'For transfer workers.',
}

const NEEDS: Readonly<Record<ScopePermission, string>> = {
  write: 'An account needs the permission to write in the scope, unless the scope is open.',
  rule: 'An account needs the permission for rules in the scope, unless the scope is open.',
  manage: 'An account needs the permission to manage in the scope, for what is not its own.',
}

/** The route table as OpenAPI 3.1: the same text from the same table, whenever and wherever. */
export function openApiDocument(): OpenApiDocument {
  const rows: [string, Route][] = Object.entries(ROUTES)
  const paths: Record<string, Record<string, Operation>> = {}
  for (const [name, row] of rows) {
    paths[row.path] = { ...paths[row.path], [row.method.toLowerCase()]: operation(name, row) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Waybill',
      version: '1',
      description:
        'Replication rules and HTTP third-party copies with tokens good for one dataset, one storage and one direction. Errors are problem documents (RFC 9457) with a stable `code`.',
    },
    tags: [...new Set(rows.map(([, row]) => row.tag))].map(name => ({ name })),
    paths,
    components: {
      schemas: { Problem: jsonSchema(problem, 'output') },
      responses: {
        Problem: {
          description: 'The request was refused or failed',
          content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
        },
      },
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description: 'A token for this server’s audience',
        },
      },
    },
    security: [{ bearer: [] }],
  }
}

function operation(name: string, row: Route): Operation {
  const parameters = parametersOf(row)
  return {
    operationId: name,
    tags: [row.tag],
    summary: row.summary,
    description: [row.description, WHO[row.role], row.permission && NEEDS[row.permission]]
      .filter(text => text !== undefined)
      .join(' '),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(row.body === undefined
      ? {}
      : {
          requestBody: { required: true, content: { 'application/json': { schema: jsonSchema(row.body, 'input') } } },
        }),
    responses: {
      [row.status]: {
        description: 'Done',
        content: { 'application/json': { schema: jsonSchema(row.answer, 'output') }, ...asLines(row) },
      },
      default: { $ref: '#/components/responses/Problem' },
    },
    ...(row.role === 'public' ? { security: [] } : {}),
  }
}

/** One item a line: the whole list from `cursor` on, without `limit`. */
function asLines(row: Route): Content {
  const item = itemOf(row)
  return item === undefined ? {} : { [NDJSON]: { schema: jsonSchema(item, 'output') } }
}

function parametersOf(row: Route): Parameter[] {
  const parameters = [...fieldsOf(row.params, 'path'), ...fieldsOf(row.query, 'query')]
  if (row.idempotent === true) {
    parameters.push({
      name: 'Idempotency-Key',
      in: 'header',
      required: false,
      description: 'The same key and body again get the same answer, and nothing is done twice.',
      schema: { type: 'string', minLength: 1, maxLength: 200 },
    })
  }
  return parameters
}

function fieldsOf(schema: z.ZodObject | undefined, place: 'path' | 'query'): Parameter[] {
  return Object.entries(schema?.shape ?? {}).map(([name, field]) => {
    const { description, ...rest } = jsonSchema(field as z.ZodType, 'input')
    return {
      name,
      in: place,
      required: place === 'path' || !(field as z.ZodType).safeParse(undefined).success,
      ...(typeof description === 'string' ? { description } : {}),
      schema: rest,
    }
  })
}

/** What a caller may send (`input`), or what it gets (`output`). */
export function jsonSchema(schema: z.ZodType, io: 'input' | 'output'): JsonSchema {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override({ zodSchema, jsonSchema: result }) {
      // Transforms here only normalise what they are given, so an answer looks as what it was made from.
      if (!(zodSchema instanceof z.ZodPipe) || !(zodSchema.out instanceof z.ZodTransform)) return
      const { $schema: __, ...before } = z.toJSONSchema(zodSchema.in, { io, unrepresentable: 'any' })
      Object.assign(result, before, result)
    },
  })
  return rest
}
