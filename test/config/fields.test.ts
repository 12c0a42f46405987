import t from 'tap'
import type { Field, SettingKey } from '../../src/config/field.ts'
import { FIELDS, fieldList } from '../../src/config/fields.ts'
import { FILLED_SECTIONS, SECTIONS } from '../../src/config/headings.ts'

t.test('every default is valid for its own field', async (t) => {
  for (const [key, field] of fieldList)
    if ('default' in field)
      t.ok(field.type.parse(field.default).ok, `${key} ${JSON.stringify(field.default)}`)
})

t.test('the defaults are those the project promises', async (t) => {
  const promised: Partial<Record<SettingKey, unknown>> = {
    'listen.host': '127.0.0.1',
    'listen.port': 8080,
    'listen.webSocket': false,
    'listen.keepAliveMs': 15_000,
    'server.startTimeoutMs': 60_000,
    'server.warmSpares': 1,
    'admin.port': 9090,
    'limits.requestBodyBytes': 4 * 1024 * 1024,
    'limits.serverMessageBytes': 64 * 1024 * 1024,
    'limits.sessions': 1000,
    'limits.processes': 32,
    'limits.sessionsPerPrincipal': 250,
    'limits.inFlight': 1000,
    'auth.require': 'any',
    'auth.timeoutMs': 10_000,
    'auth.failures.attempts': 20,
    'auth.failures.windowMs': 60_000,
    'auth.fetching.timeoutMs': 5000,
    'auth.fetching.allowPrivateAddresses': false,
    'auth.fetching.allowHttp': false,
    'limits.inFlightPerPrincipal': 100,
    'limits.connections': 10_000,
    'limits.requestTimeoutMs': 60_000,
    'limits.maxRequestTimeoutMs': 600_000,
    'limits.clientInputMs': 300_000,
    'limits.idleSessionMs': 1_800_000,
    'limits.sessionQueueBytes': 4 * 1024 * 1024,
    'limits.replayBufferBytes': 1024 * 1024,
    'limits.batch': 100,
    'limits.headerTimeoutMs': 10_000,
    'limits.bodyTimeoutMs': 30_000,
    shutdownGraceMs: 10_000,
    'log.level': 'info',
  }
  for (const [key, value] of Object.entries(promised)) {
    const field: Field<unknown> = FIELDS[key as SettingKey]
    t.same('default' in field ? field.type.parse(field.default) : undefined, { ok: true, value }, key)
  }
})

t.test('the name of a value says its unit', async (t) => {
  for (const [key, { type }] of fieldList) {
    t.equal(key.endsWith('Ms'), type.name.startsWith('duration'), key)
    t.equal(key.endsWith('Bytes'), type.name.startsWith('size'), key)
  }
})

t.test('every place in the file is used once and lies in a described section', async (t) => {
  const places = fieldList.map(([, { file }]) => file)
  t.equal(new Set(places).size, places.length)
  for (const place of places) t.ok(SECTIONS[place.split('.').slice(0, -1).join('.')], place)
  for (const path of FILLED_SECTIONS.keys()) t.ok(SECTIONS[path], path)
})

t.test('a field inherits only from one that stands before it', async (t) => {
  const keys = fieldList.map(([key]) => key)
  for (const [key, field] of fieldList)
    if ('inherits' in field) t.ok(keys.indexOf(field.inherits) < keys.indexOf(key), key)
})

t.test('no timer of a duration can overflow', async (t) => {
  for (const [key, { type }] of fieldList)
    if (key.endsWith('Ms')) t.notOk(type.parse('25d').ok, `${key} is below 2^31 ms`)
})
