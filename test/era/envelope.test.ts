import fc from 'fast-check'
import t from 'tap'
import { metaKey } from '../../src/core/envelope.ts'
import { type Message, readMessages } from '../../src/core/jsonrpc.ts'
import { messageOf } from '../../src/core/local.ts'
import { metaNames } from '../../src/core/message.ts'
import { wireBuffers } from '../../src/core/wire.ts'
import { enveloped, envelopeOf, readClient } from '../../src/era/envelope.ts'
import { initializeResult, negotiatedVersion } from '../../src/era/initialize.ts'
import { memberOf, objectOf, requestText } from '../support/messages.ts'
import { holds, idText, jsonText } from '../support/property.ts'

const written = (message: Message): string => Buffer.concat(wireBuffers(message.wire)).toString()
const initialize = (params: string): Message =>
  messageOf(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":${params}}`)

const discovered = { supportedVersions: ['2026-07-28'], capabilities: {} }
const envelope = ['"E":1', '"F":2']

t.test('the envelope is put in, and nothing else changes', async (t) => {
  const cases: [string, string, string][] = [
    [
      'no params',
      '{"jsonrpc":"2.0","id":"é" ,"method":"x"}',
      '{"jsonrpc":"2.0","id":"é","params":{"_meta":{"E":1,"F":2}} ,"method":"x"}',
    ],
    [
      'empty params',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{ }}',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"E":1,"F":2}}}',
    ],
    [
      'params',
      '{"jsonrpc":"2.0","params":{ "a" : 1.0},"id":1,"method":"x"}',
      '{"jsonrpc":"2.0","params":{"_meta":{"E":1,"F":2}, "a" : 1.0},"id":1,"method":"x"}',
    ],
    [
      'an empty _meta',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{}}}',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"E":1,"F":2}}}',
    ],
    [
      'a _meta',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"_meta":{"progressToken":1e2,"v/x":9007199254740993}}}',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"_meta":{"E":1,"F":2,"progressToken":1e2,"v/x":9007199254740993}}}',
    ],
    [
      'a _meta that is none',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":null}}',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"E":1,"F":2}}}',
    ],
    [
      'a token that is none',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":null}}}',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"E":1,"F":2}}}',
    ],
    [
      'a task',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"task":{"ttl":1}}}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"E":1,"F":2}}}',
    ],
    [
      'what belongs to a retry',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"n","requestState":"x","inputResponses":{},"z":1}}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"E":1,"F":2},"name":"n","z":1}}',
    ],
    [
      'the same of an extension',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"task":1}}',
      '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"E":1,"F":2},"task":1}}',
    ],
  ]
  for (const [name, before, after] of cases)
    t.equal(written(enveloped(messageOf(before), envelope)), after, name)
})

t.test('a client cannot set the envelope itself', async (t) => {
  const keys = metaNames.map(metaKey)
  const forged = [...keys, 'io.modelcontextprotocol\\u002flogLevel'].slice(0, -1)
  const meta = ['"a/b":1', ...forged.map((key) => `"${key}":"forged"`), '"traceparent":"t"'].join()
  const message = messageOf(`{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{${meta}}}}`)
  const sent = enveloped(message, envelope)
  t.equal(
    written(sent),
    '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"E":1,"F":2,"a/b":1,"traceparent":"t"}}}',
  )
  t.equal(sent.metaSpans, undefined, 'and nobody who looks at the message finds it')
  const escaped = messageOf(
    '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol\\u002flogLevel":"debug"}}}',
  )
  t.notMatch(written(enveloped(escaped, envelope)), /debug/, 'however it is spelled')
})

t.test('a retry carries the answers and the state as they were spelled', async (t) => {
  const message = messageOf(
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"n","requestState":"old"}}',
  )
  const retry = { inputResponses: '{"\\u0061":{"n":1.0}}', requestState: '"\\u0073"' }
  t.equal(
    written(enveloped(message, envelope, retry)),
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"E":1,"F":2},"inputResponses":{"\\u0061":{"n":1.0}},"requestState":"\\u0073","name":"n"}}',
  )
})

t.test('what a client said of itself', async (t) => {
  const read = (params: object, version = '2025-11-25'): unknown[] => {
    const { capabilitiesText, info } = readClient(initialize(JSON.stringify(params)), version)
    return [JSON.parse(capabilitiesText), info === undefined ? undefined : JSON.parse(info)]
  }
  const clientInfo = { name: 'n', version: '1', title: 'T' }
  t.same(read({ clientInfo }), [{}, clientInfo])
  t.same(read({ capabilities: [], clientInfo: { name: 'n' } }), [{}, undefined])
  t.same(
    read({
      capabilities: {
        tasks: { list: {} },
        roots: { listChanged: true },
        sampling: { tools: {} },
        elicitation: {},
        experimental: { x: { big: 1 } },
        extensions: { 'io.modelcontextprotocol/tasks': {}, 'a/b': { c: 1 } },
        'vendor/x': 1,
      },
    })[0],
    {
      roots: {},
      sampling: { tools: {} },
      elicitation: {},
      experimental: { x: { big: 1 } },
      extensions: { 'a/b': { c: 1 } },
      'vendor/x': 1,
    },
  )
  t.same(read({ capabilities: { roots: null, sampling: true, elicitation: [] } })[0], {})
  const both = { elicitation: { url: {}, form: {} } }
  t.same(read({ capabilities: both })[0], both)
  t.same(read({ capabilities: both }, '2025-06-18')[0], { elicitation: { form: {} } })
  t.same(
    read({ capabilities: { elicitation: { url: {} } } }, '2025-06-18')[0],
    {},
    'no forms for what had none',
  )
  const odd = readClient(
    initialize('{"capabilities":{"tasks":{}, "experimental":{"n":9007199254740993}}}'),
    '2025-11-25',
  )
  t.equal(odd.capabilitiesText, '{"experimental":{"n":9007199254740993}}')
})

t.test('the envelope of a client', async (t) => {
  const client = readClient(
    initialize('{"capabilities":{"roots":{}},"clientInfo":{"name":"n","version":"1"}}'),
    '2025-11-25',
  )
  const members = (level?: string): unknown => JSON.parse(`{${envelopeOf(client, discovered, level).join()}}`)
  const without = {
    [metaKey('protocolVersion')]: '2026-07-28',
    [metaKey('clientInfo')]: { name: 'n', version: '1' },
    [metaKey('clientCapabilities')]: { roots: {} },
  }
  t.same(members(), without)
  t.same(members('error'), { ...without, [metaKey('logLevel')]: 'error' })
})

t.test('initialize is answered with what the server said of itself', async (t) => {
  t.equal(negotiatedVersion('2025-03-26'), '2025-03-26')
  for (const other of ['2026-07-28', '1999-01-01', undefined]) t.equal(negotiatedVersion(other), '2025-11-25')
  const capabilities = {
    tools: { listChanged: true },
    resources: { subscribe: true },
    tasks: {},
    extensions: { 'io.modelcontextprotocol/tasks': {}, 'a/b': {} },
  }
  const serverInfo = { name: 's', version: '2', x: 1 }
  const result = {
    supportedVersions: ['2026-07-28'],
    resultType: 'complete',
    ttlMs: 0,
    cacheScope: 'private',
    capabilities,
    instructions: 'i',
    other: [1],
    _meta: { [metaKey('serverInfo')]: serverInfo, 'a/b': 1 },
  }
  t.same(initializeResult(result, '2025-06-18'), {
    protocolVersion: '2025-06-18',
    capabilities: {
      tools: { listChanged: true },
      resources: { subscribe: true },
      extensions: { 'a/b': {} },
    },
    serverInfo,
    instructions: 'i',
    other: [1],
    _meta: { 'a/b': 1 },
  })
  const unknown = {
    protocolVersion: '2025-11-25',
    capabilities: {},
    serverInfo: { name: 'unknown', version: '0' },
  }
  t.same(initializeResult(discovered, '2025-11-25'), unknown)
  t.same(
    initializeResult({ ...discovered, _meta: { [metaKey('serverInfo')]: { name: 's' } } }, '2025-11-25'),
    unknown,
  )
})

const ours = ['_meta', 'task', 'inputResponses', 'requestState']

t.test('any request keeps its members, their order and their values', async (t) => {
  const metaText = objectOf(
    memberOf(metaKey('clientInfo'), jsonText),
    memberOf('progressToken', idText),
    memberOf('v/x', jsonText),
  )
  const call = objectOf(
    memberOf('jsonrpc', fc.constant('"2.0"')),
    memberOf('id', idText),
    memberOf('method', fc.constantFrom('"tools/call"', '"a/b"')),
    memberOf(
      'params',
      objectOf(memberOf('name', jsonText), memberOf('task', jsonText), memberOf('_meta', metaText)),
    ),
  )
  const parse = (text: string): { id: unknown; method: string; params?: Record<string, unknown> } =>
    JSON.parse(text) as ReturnType<typeof parse>
  const rest = (object: object, leaveOut: readonly string[]): string =>
    JSON.stringify(Object.entries(object).filter(([key]) => !leaveOut.includes(key)))
  holds(
    t,
    fc.property(fc.oneof(call, requestText), (text) => {
      const request = readMessages(Buffer.from(text)).messages[0] as Message
      const after = written(enveloped(request, envelope))
      const [old, now] = [parse(text), parse(after)]
      const before = old.params ?? {}
      const params = now.params as Record<string, unknown>
      const meta = params['_meta'] as Record<string, unknown>
      const oldMeta =
        typeof before['_meta'] === 'object' && !Array.isArray(before['_meta']) ? before['_meta'] : {}
      const gone = old.method === 'tools/call' ? ours : ['_meta']
      const unread = request.progressToken === undefined ? ['progressToken'] : []
      return (
        meta['E'] === 1 &&
        meta['F'] === 2 &&
        rest(before, gone) === rest(params, gone) &&
        rest(oldMeta ?? {}, [...metaNames.map(metaKey), ...unread]) === rest(meta, ['E', 'F']) &&
        rest(old, ['params']) === rest(now, ['params']) &&
        // What the link writes over the id and the token is still where the spans say.
        JSON.stringify(old.id) === JSON.stringify(JSON.parse(request.idText as string)) &&
        readMessages(Buffer.from(after)).messages[0]?.idKey === request.idKey
      )
    }),
    1000,
  )
})
