import t from 'tap'
import { fieldList } from '../../src/config/fields.ts'
import { fileSchema } from '../../src/config/schema.ts'

t.test('a file that says the defaults is accepted', async (t) => {
  const file: Record<string, unknown> = {}
  for (const [, field] of fieldList) {
    if (!('default' in field)) continue
    const names = field.file.split('.')
    let section = file
    for (const name of names.slice(0, -1)) {
      section[name] ??= {}
      section = section[name] as Record<string, unknown>
    }
    section[names.at(-1) ?? ''] = field.default
  }
  t.ok(fileSchema.safeParse(file).success)
})

t.test('an empty file and one with every section empty are accepted', async (t) => {
  t.ok(fileSchema.safeParse({}).success)
  t.ok(fileSchema.safeParse({ server: { env: {} }, listen: {}, admin: {}, limits: {}, log: {} }).success)
})

t.test('nothing unknown is accepted at any level', async (t) => {
  for (const file of [
    { x: 1 },
    { server: { env: { x: 1 } } },
    { listen: { x: 1 } },
    { auth: { bearer: { x: 1 } } },
  ])
    t.notOk(fileSchema.safeParse(file).success, JSON.stringify(file))
})
