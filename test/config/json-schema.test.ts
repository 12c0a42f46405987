import t from 'tap'
import { fieldList } from '../../src/config/fields.ts'
import { jsonSchema } from '../../src/config/json-schema.ts'

type Shape = { properties?: Record<string, Shape>; anyOf?: Shape[]; [member: string]: unknown }

function at(schema: Shape, path: readonly string[]): Shape[] {
  const [name, ...rest] = path
  if (name === undefined) return [schema]
  const forms = schema.anyOf ?? [schema]
  return forms.flatMap((form) => (form.properties?.[name] ? at(form.properties[name], rest) : []))
}

t.test('every value of the file is described, with its default and limits', async (t) => {
  const schema = jsonSchema() as Shape
  for (const [key, field] of fieldList) {
    const [found] = at(schema, field.file.split('.')).flatMap((form) => form.anyOf ?? [form])
    t.match(found, field.type.json, key)
    t.ok(String(found?.['description']).startsWith(field.doc), `${key} has its description`)
    if ('default' in field) t.same(found?.['default'], field.default, `${key} has its default`)
  }
})

t.test('no section accepts unknown keys and none requires any', async (t) => {
  const sections: Shape[] = []
  const walk = (shape: Shape): void => {
    if (shape.properties) sections.push(shape)
    for (const inner of [...Object.values(shape.properties ?? {}), ...(shape.anyOf ?? [])]) walk(inner)
  }
  walk(jsonSchema() as Shape)
  t.equal(sections.length, 9)
  for (const section of sections) t.match(section, { additionalProperties: false, required: undefined })
})

t.test('auth is none or a section that is not empty', async (t) => {
  const auth = at(jsonSchema() as Shape, ['auth'])[0]
  t.match(auth?.anyOf, [{ const: 'none' }, { type: 'object', minProperties: 1 }])
})

t.test('it names its dialect and is plain data', async (t) => {
  const schema = jsonSchema()
  t.equal(schema['$schema'], 'https://json-schema.org/draft/2020-12/schema')
  t.same(JSON.parse(JSON.stringify(schema)), schema)
})
