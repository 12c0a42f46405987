import t from 'tap'
import { fieldList } from '../../src/config/fields.ts'
import { SECTIONS } from '../../src/config/headings.ts'
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
    // Where a word and a section are both right, the description stands at each.
    const forms = at(schema, field.file.split('.'))
    const [found] = forms.flatMap((form) => (form['description'] === undefined ? (form.anyOf ?? []) : [form]))
    t.match(found, field.type.json, key)
    t.ok(String(found?.['description']).startsWith(field.doc), `${key} has its description`)
    if ('default' in field) t.same(found?.['default'], field.default, `${key} has its default`)
  }
})

t.test('no section accepts unknown keys and none requires any', async (t) => {
  for (const path of Object.keys(SECTIONS)) {
    const forms = at(jsonSchema() as Shape, path === '' ? [] : path.split('.'))
    const section = forms
      .flatMap((form) => form.anyOf ?? [form])
      .find((form) => form.properties !== undefined)
    t.match(section, { additionalProperties: false, required: undefined }, path)
  }
})

t.test('no value accepts unknown members, and each member is described', async (t) => {
  const walk = (shape: Shape): void => {
    if (shape.properties) t.equal(shape['additionalProperties'], false)
    for (const [name, inner] of Object.entries(shape.properties ?? {})) {
      t.type(inner['description'] ?? inner.anyOf?.[0]?.['description'], 'string', name)
      walk(inner)
    }
    for (const inner of shape.anyOf ?? []) walk(inner)
    const { items } = shape
    if (typeof items === 'object') walk(items as Shape)
  }
  walk(jsonSchema() as Shape)
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
