import t from 'tap'
import { compileCapabilities } from '../../src/authz/capabilities.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { messageOf } from '../../src/core/local.ts'
import { operationOf } from '../../src/core/operation.ts'
import type { Era } from '../../src/core/types.ts'
import { honoured } from '../../src/era/discovery.ts'
import { decoded } from '../support/authz.ts'
import { written } from '../support/modern-calls.ts'

const switches = (...on: ('tools' | 'resources' | 'prompts')[]) => ({
  tools: on.includes('tools'),
  resources: on.includes('resources'),
  prompts: on.includes('prompts'),
})

type On = Parameters<typeof switches>

function code(on: On, method: string, params: object = {}, era: Era = 'legacy'): string {
  const request = decoded(method, params, { era })
  try {
    compileCapabilities(switches(...on)).permit(request, operationOf(request.message))
    return 'ok'
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown.code
    throw thrown
  }
}

const methods = {
  tools: ['tools/list', 'tools/call', 'tools/whatever'],
  prompts: ['prompts/list', 'prompts/get'],
  resources: [
    ...['resources/list', 'resources/templates/list', 'resources/read'],
    ...['resources/subscribe', 'resources/unsubscribe'],
  ],
}

t.test('methods of a capability that is off are methods that do not exist', async (t) => {
  for (const [name, list] of Object.entries(methods)) {
    const others = (['tools', 'prompts', 'resources'] as const).filter((each) => each !== name)
    for (const method of list) {
      t.equal(code(['tools', 'prompts', 'resources'], method), 'ok', method)
      t.equal(code(others, method), 'ERR_UNSUPPORTED', method)
      t.equal(code(others, method, {}, 'modern'), 'ERR_METHOD_UNKNOWN', method)
      t.equal(code([name as 'tools'], method), 'ok', method)
    }
  }
  for (const method of ['initialize', 'ping', 'server/discover', 'tasks/get', 'x', '', '/tools', 'tools']) {
    t.equal(code([], method), 'ok', method)
  }
})

t.test(
  'completions go with the last of prompts and resources, and name neither once it is off',
  async (t) => {
    const prompt = { ref: { type: 'ref/prompt', name: 'p' } }
    const resource = { ref: { type: 'ref/resource', uri: 'r' } }
    t.equal(code(['tools'], 'completion/complete', prompt), 'ERR_UNSUPPORTED')
    t.equal(code(['tools'], 'completion/complete', prompt, 'modern'), 'ERR_METHOD_UNKNOWN')
    t.equal(code(['prompts'], 'completion/complete', prompt), 'ok')
    t.equal(code(['prompts'], 'completion/complete', resource), 'ERR_PARAMS')
    t.equal(code(['resources'], 'completion/complete', resource), 'ok')
    t.equal(code(['resources'], 'completion/complete', prompt), 'ERR_PARAMS')
  },
)

t.test('nobody listens for resources that are off', async (t) => {
  const wish = { notifications: { toolsListChanged: true, resourceSubscriptions: ['r:1'] } }
  t.equal(code(['tools'], 'subscriptions/listen', wish, 'modern'), 'ERR_PARAMS')
  t.equal(code(['resources'], 'subscriptions/listen', wish, 'modern'), 'ok')
  t.equal(code([], 'subscriptions/listen', { notifications: {} }, 'modern'), 'ok')
})

t.test('notifications and responses are not methods of a capability', async (t) => {
  for (const text of ['{"jsonrpc":"2.0","method":"tools/x"}', '{"jsonrpc":"2.0","id":1,"result":{}}']) {
    t.equal(code([], text), 'ok')
  }
})

t.test('wishes to hear of what is off are taken out, and everything else stays as it was', async (t) => {
  const asked = (wishes: string, method = 'subscriptions/listen'): string =>
    `{"jsonrpc":"2.0", "id":1,"method":"${method}","params":{ "notifications": ${wishes} ,"_meta":{"toolsListChanged":1}}}`
  const heard = (on: On, wishes: string, method?: string): string =>
    written(compileCapabilities(switches(...on)).listening(messageOf(asked(wishes, method))))
  const all =
    '{ "toolsListChanged":true , "promptsListChanged":true,"resourcesListChanged": true, "resourceSubscriptions":[],"taskIds":["t"]}'
  t.equal(heard(['tools', 'prompts', 'resources'], all), asked(all))
  t.equal(heard(['tools'], all), asked('{ "toolsListChanged":true , "taskIds":["t"]}'))
  t.equal(heard(['prompts'], all), asked('{ "promptsListChanged":true,"taskIds":["t"]}'))
  t.equal(
    heard(['resources'], all),
    asked('{ "resourcesListChanged": true, "resourceSubscriptions":[],"taskIds":["t"]}'),
  )
  t.equal(heard([], '{"toolsListChanged":true}'), asked('{}'))
  t.equal(heard([], '{"t\\u006folsListChanged":true,"x":1}'), asked('{"x":1}'), 'spelled with an escape')
  t.equal(
    heard([], '{"TOOLSlistChanged":true,"x":1,"toolsListChanged":1}'),
    asked('{"x":1}'),
    'other letters',
  )
  for (const odd of ['null', '[]', '"toolsListChanged"', '7']) t.equal(heard([], odd), asked(odd))
  t.equal(heard([], all, 'x/listen'), asked(all, 'x/listen'))
  const request = messageOf(asked(all))
  const message = compileCapabilities(switches('tools')).listening(request)
  t.same(honoured(message, { tools: { listChanged: true }, prompts: { listChanged: true } }), {
    toolsListChanged: true,
  })
  const without = messageOf('{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}')
  t.equal(compileCapabilities(switches()).listening(without), without)
})

const advertised = (on: On, text: string): string =>
  written(compileCapabilities(switches(...on)).advertise(messageOf(text)))

t.test('only what is on is advertised, and everything else stays as it was', async (t) => {
  const result = (capabilities: string): string =>
    `{"jsonrpc":"2.0","id":1,"result":{ "a":1.0, "capabilities": ${capabilities} ,"serverInfo":{"tools":1}}}`
  const all =
    '{ "logging":{}, "tools":{"listChanged":true} , "prompts":{},"resources":{},"completions":{}, "tasks":{}}'
  t.equal(advertised(['tools', 'prompts', 'resources'], result(all)), result(all))
  t.equal(
    advertised(['tools'], result(all)),
    result('{ "logging":{}, "tools":{"listChanged":true} , "tasks":{}}'),
  )
  t.equal(
    advertised(['prompts'], result(all)),
    result('{ "logging":{}, "prompts":{},"completions":{}, "tasks":{}}'),
  )
  t.equal(advertised([], result('{"tools":{}}')), result('{}'))
  t.equal(advertised([], result('{"t\\u006fols":{},"x":1}')), result('{"x":1}'), 'spelled with an escape')
  t.equal(advertised([], result('{"Tools":{},"x":1,"tools":1}')), result('{"x":1}'), 'in other letters')
  for (const odd of ['{}', 'null', '[]', '"tools"', '7']) t.equal(advertised([], result(odd)), result(odd))
})

t.test('capabilities that stand twice are cleared twice', async (t) => {
  const twice = '{"jsonrpc":"2.0","id":1,"result":{"capabilities":{"tools":{}},"capabilities":{"tools":{}}}}'
  t.equal(advertised([], twice), '{"jsonrpc":"2.0","id":1,"result":{"capabilities":{},"capabilities":{}}}')
})

t.test('errors and results without capabilities pass', async (t) => {
  for (const text of [
    '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"capabilities"}}',
    '{"jsonrpc":"2.0","id":1,"result":{}}',
    '{"jsonrpc":"2.0","id":1,"result":null}',
  ]) {
    t.equal(advertised([], text), text)
  }
})

t.test('an answer that was changed before is read as it was changed', async (t) => {
  const message = messageOf('{"jsonrpc":"2.0","id":1,"result":{"capabilities":{"x":1}}}')
  const at = message.bytes.indexOf('{"x":1}')
  const changed = message.edited({ start: at, end: at + 7, text: '{"tools":{},"y":2}' })
  const guard = compileCapabilities(switches())
  t.equal(written(guard.advertise(changed)), '{"jsonrpc":"2.0","id":1,"result":{"capabilities":{"y":2}}}')
})
