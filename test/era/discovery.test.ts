import fc from 'fast-check'
import t from 'tap'
import { metaKey } from '../../src/core/envelope.ts'
import { localNotification, messageOf } from '../../src/core/local.ts'
import {
  acknowledgement,
  discoverResult,
  type Filter,
  honoured,
  listensFor,
  tagged,
} from '../../src/era/discovery.ts'
import { type Json, membersAt, modernRequest, written } from '../support/modern-calls.ts'
import { nameOf, oddMembers, perhaps, shownMember, shuffled } from '../support/odd-json.ts'
import { holds, idText, type Member, objectText } from '../support/property.ts'

const server = (result: object): Json =>
  discoverResult({ protocolVersion: '2025-11-25', capabilities: {}, ...result })

t.test('what a legacy server said when it was initialized, as a modern one says it', async (t) => {
  t.same(
    server({
      capabilities: { tools: { listChanged: true }, tasks: { list: {} }, 'x/y': 1 },
      instructions: 'do',
      serverInfo: { name: 's', version: '1', title: 't' },
      other: 1,
      _meta: { own: 1 },
    }),
    {
      resultType: 'complete',
      supportedVersions: ['2026-07-28'],
      capabilities: { tools: { listChanged: true }, 'x/y': 1 },
      instructions: 'do',
      ttlMs: 0,
      cacheScope: 'private',
      _meta: { [metaKey('serverInfo')]: { name: 's', version: '1', title: 't' } },
    },
  )
  t.same(server({ instructions: 7 }), {
    resultType: 'complete',
    supportedVersions: ['2026-07-28'],
    capabilities: {},
    ttlMs: 0,
    cacheScope: 'private',
  })
  const odd = JSON.parse('{"capabilities":{"__proto__":{"a":1},"tasks":{}}}') as object
  t.equal(JSON.stringify(server(odd).capabilities), '{"__proto__":{"a":1}}')
})

const all = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { listChanged: true, subscribe: true },
}
const filterOf = (notifications: unknown, capabilities: object = all): Filter =>
  honoured(
    modernRequest('subscriptions/listen', { notifications }),
    capabilities as Readonly<Record<string, unknown>>,
  )

t.test('of what a client wishes it gets what the server can do', async (t) => {
  const wishes = {
    toolsListChanged: true,
    promptsListChanged: true,
    resourcesListChanged: true,
    resourceSubscriptions: ['a', 'b', 'a'],
  }
  t.same(filterOf(wishes), { ...wishes, resourceSubscriptions: ['a', 'b'] })
  t.same(filterOf(wishes, {}), {})
  t.same(filterOf(wishes, { tools: {}, prompts: null, resources: true }), {})
  t.same(filterOf(wishes, { tools: { listChanged: 'true' } }), {})
  t.same(filterOf(wishes, { resources: { listChanged: true } }), { resourcesListChanged: true })
  t.same(filterOf(wishes, { resources: { subscribe: true } }), { resourceSubscriptions: ['a', 'b'] })
  t.same(filterOf({ toolsListChanged: false, promptsListChanged: 1, taskIds: ['x'], unknown: true }), {})
  t.same(filterOf({ resourceSubscriptions: ['a', 1, null, 'b', ['c']] }), {
    resourceSubscriptions: ['a', 'b'],
  })
  for (const none of [undefined, null, [], 'x', { resourceSubscriptions: 'a' }]) {
    const filter = filterOf(none)
    t.same(filter.resourceSubscriptions ?? [], [])
    t.notOk(filter.toolsListChanged)
  }
  const many = Array.from({ length: 5000 }, (_, i) => `file:///${i}`)
  t.equal(filterOf({ resourceSubscriptions: many }).resourceSubscriptions?.length, 1000)
})

t.test('what is listened for', async (t) => {
  const methods = {
    'notifications/tools/list_changed': { toolsListChanged: true },
    'notifications/prompts/list_changed': { promptsListChanged: true },
    'notifications/resources/list_changed': { resourcesListChanged: true },
    'notifications/resources/updated': { resourceSubscriptions: [] },
  } as const
  const none = [
    'notifications/message',
    'notifications/progress',
    'notifications/cancelled',
    'x',
    '__proto__',
  ]
  for (const method of [...Object.keys(methods), ...none]) {
    for (const [own, filter] of Object.entries(methods))
      t.equal(listensFor(filter as Filter, method), own === method, `${own}, ${method}`)
    t.notOk(listensFor({}, method))
  }
})

t.test('an acknowledgement names the request by its id, as it is spelled', async (t) => {
  holds(
    t,
    fc.property(idText, fc.array(fc.string()), (id, uris) => {
      const text = acknowledgement({ toolsListChanged: true, resourceSubscriptions: uris }, id)
      const { method, params } = JSON.parse(text) as Json
      messageOf(text)
      return (
        method === 'notifications/subscriptions/acknowledged' &&
        JSON.stringify(params.notifications.resourceSubscriptions) === JSON.stringify(uris) &&
        text.includes(`"${metaKey('subscriptionId')}":${id}}`)
      )
    }),
    300,
  )
})

const tag = metaKey('subscriptionId')
const tagOf = (text: string, id = '"é"'): Json => {
  const message = messageOf(text)
  return JSON.parse(written(tagged(message, id))).params?._meta?.[tag]
}

t.test('every notification of a subscription says of which', async (t) => {
  const head = '"jsonrpc":"2.0","method":"notifications/resources/updated"'
  const cases = [
    `{${head}}`,
    `{ ${head} }`,
    `{${head},"params":{}}`,
    `{"params":{ },${head}}`,
    `{${head},"params":{"uri":"u"}}`,
    `{${head},"params":{"uri":"u","_meta":{}}}`,
    `{${head},"params":{"_meta":{"a":1},"uri":"u"}}`,
  ]
  for (const text of cases) {
    t.equal(tagOf(text), 'é', text)
    t.equal(tagOf(text, '7'), 7, text)
  }
})

t.test('even if its _meta is none', async (t) => {
  const head = '"jsonrpc":"2.0","method":"notifications/resources/updated"'
  for (const odd of ['null', '[]', '1'])
    t.equal(tagOf(`{${head},"params":{"uri":"u","_meta":${odd}}}`), 'é', odd)
})

t.test('and keeps what else it says', async (t) => {
  const meta = oddMembers.chain((members) =>
    fc.record({ members: fc.constant(members), text: objectText(members) }),
  )
  const params = fc.tuple(meta, oddMembers).chain(([meta, odd]) =>
    shuffled(fc.constant(odd), perhaps('_meta', fc.constant(meta.text))).chain((members) =>
      fc.record({
        meta: fc.constant(meta.members),
        members: fc.constant(members),
        text: objectText(members),
      }),
    ),
  )
  holds(
    t,
    fc.property(params, idText, ({ meta, members, text }, id) => {
      const line = (each: Member): string => shownMember(each).replace(/[\r\n]/g, ' ')
      const message = messageOf(
        `{"jsonrpc":"2.0","params":${text},"method":"notifications/resources/updated"}`,
      )
      const out = written(tagged(message, id))
      const own = members.find((each) => nameOf(each) === '_meta')
      const added = `"${tag}":${id}`
      JSON.parse(out)
      if (own === undefined) {
        return membersAt(out, 'params').join('\n') === [`"_meta":{${added}}`, ...members.map(line)].join('\n')
      }
      const others = membersAt(out, 'params').filter((each) => !each.startsWith(`${own.key}:`))
      const kept = members.filter((each) => each !== own)
      return (
        membersAt(out, 'params', '_meta').join('\n') === [added, ...meta.map(line)].join('\n') &&
        others.join('\n') === kept.map(line).join('\n')
      )
    }),
    1000,
  )
})

t.test('a tag that is there already is left to whoever sends it on', async (t) => {
  const message = localNotification('notifications/tools/list_changed', { _meta: { [tag]: 'spoofed' } })
  t.equal(tagged(message, '7'), message)
})
