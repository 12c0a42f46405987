import * as z from 'zod'
import { fileSchema } from './schema.ts'

/** The JSON Schema (2020-12) of the configuration file, with descriptions and defaults; editors complete from it. */
export function jsonSchema(): Record<string, unknown> {
  const { $schema, ...schema } = z.toJSONSchema(fileSchema, { io: 'input' })
  return { $schema, title: 'mcp-sidecar configuration', ...schema }
}
