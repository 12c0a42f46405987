/** Clients of the handshake era, over every transport, in front of servers that know nothing but the modern one. */
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { connect, nameOf, play, type Route } from '../support/clients.ts'
import { conformanceScenario, conformanceServer } from '../support/conformance.ts'
import { about, comparable, orderOf } from '../support/either-era.ts'
import { startTestSidecar, until } from '../support/sidecar.ts'

const routes: readonly Route[] = [
  { sdk: 'v1', over: 'Streamable HTTP' },
  { sdk: 'v1', over: 'HTTP+SSE' },
  { sdk: 'v1', over: 'WebSocket' },
  { sdk: 'v2', over: 'Streamable HTTP' },
  { sdk: 'v2', over: 'HTTP+SSE' },
  { sdk: 'v2', over: 'WebSocket' },
]

const textOf = (result: { content: { text: string }[] }): string => result.content[0]?.text ?? ''
const read = (result: { content: { text: string }[] }) => JSON.parse(textOf(result))

test('a modern server on the SDK does for legacy clients what its own legacy side does over stdio', async (t) => {
  const command = conformanceServer('modern')
  const { base, logs } = await startTestSidecar(t, { command, flags: { webSocket: true } })
  const run = (route: Route): Promise<object> =>
    play(route, { command: conformanceServer('legacy'), base }, async (peer) =>
      comparable(await conformanceScenario(peer)),
    )
  const expected = {
    v1: await run({ sdk: 'v1', over: 'stdio' }),
    v2: await run({ sdk: 'v2', over: 'stdio' }),
  }
  for (const route of routes) {
    t.test(`${nameOf(route)} sees the same`, async (t) => {
      t.strictSame(await run(route), expected[route.sdk])
    })
  }
  t.test('the sidecar speaks the modern era to it', async (t) => {
    t.match(
      logs.filter(({ fields }) => 'era' in fields),
      [{ fields: { era: 'modern', versions: ['2026-07-28'] } }],
    )
  })
})

test('legacy clients in front of a bare modern server', async (t) => {
  const script = fileURLToPath(new URL('../fixtures/modern-server.mjs', import.meta.url))
  const command = [process.execPath, script, '--page=20']
  const { base } = await startTestSidecar(t, { command, flags: { webSocket: true } })
  for (const route of routes) {
    t.test(nameOf(route), async (t) => {
      const peer = await connect(route, { command, base })
      t.teardown(() => peer.close())
      t.test('it shakes hands in the name of the server', async (t) => {
        t.match(peer.server, {
          info: { name: 'modern-server' },
          instructions: 'Call a tool.',
          capabilities: { tools: { listChanged: true }, resources: { subscribe: true }, logging: {} },
        })
        t.same(await peer.ping(), {})
      })
      t.test('four rounds, each of another kind', async (t) => {
        peer.user.answers.push({ action: 'accept', content: { name: 'Ada' } }, { action: 'accept' })
        const kinds = ['elicitation', 'url', 'sampling', 'roots']
        const { answers } = read(await peer.call('rounds', { count: 4, kinds }))
        t.match(answers, [
          { action: 'accept', content: { name: 'Ada' } },
          { action: 'accept' },
          { role: 'assistant', content: { text: 'You said: step 3 of 4 🙂' } },
          { roots: [{ uri: 'file:///somewhere/project' }] },
        ])
        t.match(peer.user.asked, [
          { method: 'elicitation/create', params: { message: 'step 1 of 4' } },
          { method: 'elicitation/create', params: { mode: 'url', elicitationId: /./ } },
          { method: 'sampling/createMessage' },
          { method: 'roots/list' },
        ])
      })
      t.test('a prompt and a resource that ask', async (t) => {
        peer.user.answers.push({ action: 'accept', content: { name: 'Ada' } })
        const { messages } = await peer.getPrompt('ask', { state: 'é"\\' })
        const answer = { action: 'accept', content: { name: 'Ada' } }
        t.same(JSON.parse(messages[0].content.text), {
          inputResponses: { who: answer },
          requestState: 'é"\\',
        })
        peer.user.answers.push({ action: 'decline' })
        const { contents } = await peer.readResource('test://ask')
        t.same(JSON.parse(contents[0].text).inputResponses, { who: { action: 'decline' } })
      })
      t.test('state without a question', async (t) => {
        t.same(read(await peer.call('state-only', { count: 2 })), { rounds: 2 })
      })
      t.test('progress under the token of the client', async (t) => {
        for (const token of ['a token', 424_242]) {
          await peer.call('progress', { count: 5 }, { token })
          t.strictSame(orderOf(peer, token), [1, 2, 3, 4, 5, 'result'])
        }
      })
      t.test('log messages from the level that was set', async (t) => {
        await peer.setLevel('warning')
        const logged = () => peer.wire.fromServer.filter(about('notifications/message'))
        // For two seconds after a cancelled call of the same principal a message could be that call's.
        await until(async () => {
          for (const level of ['info', 'error']) {
            await peer.call('log', { level, data: `${level} of ${nameOf(route)}` })
          }
          return logged().length > 0
        }, 'a log message')
        t.match(logged(), [{ params: { level: 'error', data: `error of ${nameOf(route)}` } }])
        t.equal(logged().length, 1)
      })
      t.test('updates of a resource while it is subscribed to', async (t) => {
        const uri = `test://item/${route.sdk}-${route.over.replace(/\W/g, '')}`
        const updated = about('notifications/resources/updated', uri)
        await peer.subscribe(uri)
        await peer.call('touch', { uri })
        await peer.wire.until('an update', updated)
        t.same(peer.wire.fromServer.findLast(updated).params, { uri })
        await peer.unsubscribe(uri)
        const count = async () => textOf(await peer.call('touch', { uri }))
        await until(async () => (await count()) === '0', 'the server not to be listened to any more')
      })
      t.test('changed lists', async (t) => {
        for (const list of ['tools', 'prompts', 'resources']) {
          const method = `notifications/${list}/list_changed`
          await peer.call('change', { list })
          await peer.wire.until(`changed ${list}`, about(method))
        }
        const names: string[] = []
        let cursor: string | undefined
        do {
          const page = await peer.request('tools/list', cursor === undefined ? {} : { cursor })
          names.push(...page.tools.map(({ name }: { name: string }) => name))
          cursor = page.nextCursor
        } while (cursor !== undefined)
        t.ok(names.includes('echo') && names.includes('changed-1'), 'all pages of the list')
      })
      t.test('a call that is cancelled is cancelled at the server', async (t) => {
        const gone = new AbortController()
        const key = nameOf(route)
        const call = peer.call('hold', { key }, { signal: gone.signal })
        const failed = t.rejects(call)
        await until(async () => read(await peer.call('held')).includes(key), 'the call to be there')
        gone.abort('changed my mind')
        await failed
        const cancelled = async () =>
          read(await peer.call('cancelled')).some((each: { key?: string }) => each.key === key)
        await until(cancelled, 'the call to be cancelled')
        t.notOk(read(await peer.call('held')).includes(key))
      })
      t.test('completion', async (t) => {
        const ref = { type: 'ref/prompt', name: 'greet' }
        const { completion } = await peer.complete({ ref, argument: { name: 'name', value: 'A' } })
        t.match(completion, { values: ['Ada', 'Alan'], total: 2 })
      })
      t.test('what it has no words for', async (t) => {
        t.match(await peer.call('array'), { content: [{ text: '[1,"two",{"three":3}]' }] })
        await t.rejects(peer.readResource('test://nothing'))
        // SDK v2 hands on its own code for it.
        const error = { code: -32002, data: { uri: 'test://nothing' } }
        t.match(
          peer.wire.received.findLast((message) => message.error),
          { error },
        )
        await t.rejects(peer.call('no-such-tool'), { code: -32602 })
        await t.rejects(peer.request('no/such-method'), { code: -32601 })
      })
      t.test('the server found no fault with any message', async (t) => {
        t.same(read(await peer.call('violations')), [])
        t.strictSame(
          peer.errors.filter((text) => !text.includes('unknown token')),
          [],
        )
      })
    })
  }
})
