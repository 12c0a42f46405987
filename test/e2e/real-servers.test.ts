import { mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { type Test, test } from 'tap'
import {
  type Abilities,
  connect,
  getDefaultEnvironment,
  type Json,
  nameOf,
  type Peer,
  type Route,
  type Target,
} from '../support/clients.ts'
import { startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { outline, Recorder, type Transcript } from '../support/transcript.ts'

function commandOf(server: string, ...args: string[]): string[] {
  const script = new URL(`../../node_modules/@modelcontextprotocol/${server}/dist/index.js`, import.meta.url)
  return [process.execPath, fileURLToPath(script), ...args]
}

const environment = getDefaultEnvironment()

const direct = { v1: { sdk: 'v1', over: 'stdio' }, v2: { sdk: 'v2', over: 'stdio' } } as const

const bridged: readonly Route[] = [
  { sdk: 'v1', over: 'Streamable HTTP' },
  { sdk: 'v1', over: 'HTTP+SSE' },
  { sdk: 'v1', over: 'WebSocket' },
  { sdk: 'v2', over: 'Streamable HTTP' },
  { sdk: 'v2', over: 'HTTP+SSE' },
]

/** Where less can go wrong: still each transport and both SDKs. */
const fewer = bridged.filter(({ sdk, over }) => sdk === 'v1' || over === 'HTTP+SSE')

/** Connects, plays the scenario and closes, whatever happens. */
async function play<T>(
  route: Route,
  target: Target,
  abilities: Abilities,
  scenario: (peer: Peer) => Promise<T>,
): Promise<T> {
  const peer = await connect(route, target, abilities)
  try {
    return await scenario(peer)
  } finally {
    await peer.close()
  }
}

/** A promise that a later test awaits: not unhandled until then. */
function later<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

const about = (method: string, text = '') => {
  return (message: Json): boolean =>
    message.method === method && (text === '' || JSON.stringify(message.params).includes(text))
}

// --- server-everything -------------------------------------------------------------------------------------------

const everything = commandOf('server-everything', 'stdio')

const dynamicText = 'demo://resource/dynamic/text/7'
const dynamicBlob = 'demo://resource/dynamic/blob/8'
const original = 'compress me, é and 🙂 too'

/** What a scenario calls, to see at the end that no tool was forgotten. */
function calling(peer: Peer) {
  const called = new Set<string>()
  return {
    called,
    call: (name: string, ...rest: [args?: object, options?: Parameters<Peer['call']>[2]]) => {
      called.add(name)
      return peer.call(name, ...rest)
    },
  }
}

/** Everything that needs no state of its own in the server process, so that it works in both topologies. */
async function exchanges(peer: Peer, { step }: Steps, { call, called }: ReturnType<typeof calling>) {
  const { user, wire } = peer
  await step('ping', () => peer.ping())
  const tools = await step('tools/list', () => peer.listTools())
  await step('prompts/list', () => peer.listPrompts())
  await step('resources/templates/list', () => peer.listResourceTemplates())

  await step('echo', () => call('echo', { message: 'a "quoted" line\nand \u2028 é 日本 🙂' }))
  await step('echo of a megabyte', async () => {
    const message = 'a megabyte, é and 🙂; '.repeat(41_943)
    const [{ text }] = (await call('echo', { message })).content
    return text === `Echo: ${message}`
  })
  await step('twenty calls at once', () =>
    Promise.all(Array.from({ length: 20 }, (_, i) => call('echo', { message: `number ${i}` }))),
  )
  for (const messageType of ['error', 'success', 'debug']) {
    await step(`annotated ${messageType}`, () =>
      call('get-annotated-message', { messageType, includeImage: messageType === 'success' }),
    )
  }
  await step('environment', async () => {
    const result = await call('get-env')
    return JSON.parse(result.content[0].text)
  })
  await step('resource links', () => call('get-resource-links', { count: 4 }))
  await step('text reference', () => call('get-resource-reference', { resourceType: 'Text', resourceId: 3 }))
  await step('blob reference', () => call('get-resource-reference', { resourceType: 'Blob', resourceId: 4 }))
  await step('structured content', () => call('get-structured-content', { location: 'Chicago' }))
  await step('sum', () => call('get-sum', { a: 0.1, b: 9_007_199_254_740_991 }))
  await step('image', () => call('get-tiny-image'))

  await step('a tool that does not exist', () => peer.call('no-such-tool'))
  await step('arguments that do not fit', () => call('get-sum', { a: 'one' }))
  await step('a method that does not exist', () => peer.request('no/such-method', { some: 'thing' }))

  await step('simple prompt', () => peer.getPrompt('simple-prompt'))
  await step('prompt with arguments', () => peer.getPrompt('args-prompt', { city: 'Köln', state: 'NRW' }))
  await step('prompt without its argument', () => peer.getPrompt('args-prompt', {}))
  await step('completable prompt', () =>
    peer.getPrompt('completable-prompt', { department: 'Sales', name: 'Eve' }),
  )
  await step('text prompt', () =>
    peer.getPrompt('resource-prompt', { resourceType: 'Text', resourceId: '5' }),
  )
  await step('blob prompt', () =>
    peer.getPrompt('resource-prompt', { resourceType: 'Blob', resourceId: '6' }),
  )
  await step('a prompt that does not exist', () => peer.getPrompt('no-such-prompt'))

  const complete = (ref: object, name: string, value: string, context?: object) =>
    peer.complete({ ref, argument: { name, value }, ...(context === undefined ? {} : { context }) })
  const prompt = (name: string) => ({ type: 'ref/prompt', name })
  const template = { type: 'ref/resource', uri: 'demo://resource/dynamic/text/{resourceId}' }
  await step('complete a department', () => complete(prompt('completable-prompt'), 'department', 'S'))
  await step('complete a name in its department', () =>
    complete(prompt('completable-prompt'), 'name', '', { arguments: { department: 'Marketing' } }),
  )
  await step('complete a resource type', () => complete(prompt('resource-prompt'), 'resourceType', 'T'))
  await step('complete a resource id', () => complete(template, 'resourceId', '12'))
  await step('complete what is no id', () => complete(template, 'resourceId', 'x'))

  const documents = await step('resources/list', async () => {
    const { resources } = await peer.listResources()
    return resources.filter(({ uri }) => uri.includes('/static/'))
  })
  for (const { uri } of documents ?? []) await step(`read ${uri}`, () => peer.readResource(uri))
  await step('read text', () => peer.readResource(dynamicText))
  await step('read binary', () => peer.readResource(dynamicBlob))
  await step('read what does not exist', () => peer.readResource('demo://resource/nothing'))

  await step('compressed, embedded', async () => {
    const data = `data:text/plain,${encodeURIComponent(original)}`
    const result = await call('gzip-file-as-resource', { name: 'a.gz', data, outputType: 'resource' })
    const { blob } = result.content[0].resource
    return { result, text: gunzipSync(Buffer.from(blob, 'base64')).toString() }
  })
  await step('compressed, as a link', async () => {
    const data = `data:text/plain,${encodeURIComponent(original)}`
    const result = await call('gzip-file-as-resource', { name: 'b.gz', data, outputType: 'resourceLink' })
    const { contents } = await peer.readResource(result.content[0].uri)
    return { result, contents, text: gunzipSync(Buffer.from(contents[0].blob, 'base64')).toString() }
  })

  await step('sampling', () => call('trigger-sampling-request', { prompt: 'say hello', maxTokens: 50 }))
  await step('sampling for three calls at once', () =>
    Promise.all(['one', 'two', 'three'].map((prompt) => call('trigger-sampling-request', { prompt }))),
  )
  await step('sampling refused', async () => {
    user.refusesSampling = true
    const result = await call('trigger-sampling-request', { prompt: 'say something else' })
    user.refusesSampling = false
    return result
  })

  await step('form accepted', () => {
    user.answers.push({
      action: 'accept',
      content: {
        name: 'Zoë 🙂',
        check: true,
        email: 'zoe@example.org',
        integer: 7,
        number: 2.5,
        untitledMultipleSelectEnum: ['Piano', 'Drums'],
      },
    })
    return call('trigger-elicitation-request')
  })
  await step('form declined', () => {
    user.answers.push({ action: 'decline' })
    return call('trigger-elicitation-request')
  })
  await step('form cancelled', () => call('trigger-elicitation-request'))

  const visit = { url: 'https://example.org/consent?a=1&b=2', message: 'Please visit' }
  for (const action of ['accept', 'decline', 'cancel'] as const) {
    await step(`url, ${action}`, () => {
      user.answers.push({ action })
      return call('trigger-url-elicitation', { ...visit, elicitationId: `mine-${action}` })
    })
  }
  // The second call is the same one again, after the user has done what the error asked for.
  const again = { ...visit, elicitationId: 'again', errorPath: true }
  await step('url required', () => call('trigger-url-elicitation', again))
  await step('url required, satisfied', () => {
    user.answers.push({ action: 'accept' })
    return call('trigger-url-elicitation', again)
  })

  for (const token of ['a token', 424_242]) {
    await step(`progress for ${JSON.stringify(token)}`, async () => {
      const result = await call('trigger-long-running-operation', { duration: 0.2, steps: 4 }, { token })
      const { id } = wire.sent.findLast(({ params }) => params?._meta?.progressToken === token)
      const order = wire.received.flatMap((message) => {
        if (message.params?.progressToken === token) return [message.params.progress]
        return message.id === id && message.result !== undefined ? ['result'] : []
      })
      return { result, order }
    })
  }
  await step('progress to a callback', async () => {
    const seen: number[] = []
    const onprogress = ({ progress }: { progress: number }) => seen.push(progress)
    const result = await call('trigger-long-running-operation', { duration: 0.2, steps: 4 }, { onprogress })
    // The SDKs lose progress notifications that they read together with the result, over stdio too.
    return { result, inOrder: seen.every((progress, i) => progress === i + 1) }
  })
  await step('subscribed', () => peer.subscribe(dynamicText))
  await step('updates on', () => call('toggle-subscriber-updates'))
  await wire.until('an update', about('notifications/resources/updated'))
  await step('updates off', () => call('toggle-subscriber-updates'))
  await step('unsubscribed', () => peer.unsubscribe(dynamicText))

  await step('level', () => peer.setLevel('debug'))
  await step('logging on', () => call('toggle-simulated-logging'))
  await wire.until('a simulated log message', about('notifications/message', 'level'))
  await step('logging off', () => call('toggle-simulated-logging'))
  await step('a level that does not exist', () => peer.request('logging/setLevel', { level: 'loud' }))
  return { tools: tools?.tools.map(({ name }) => name) ?? [], called }
}

interface Steps {
  readonly step: Recorder['step']
}

/** Drives a client through everything the server can do. */
async function everythingScenario(peer: Peer, withClientTasks: boolean): Promise<Transcript> {
  const recorder = new Recorder(peer)
  const step = recorder.step.bind(recorder)
  const { user, wire } = peer
  const calls = calling(peer)
  const { call, called } = calls
  await step('initialize', () => peer.server)
  await wire.until('the server to have the roots', about('notifications/message', 'Roots updated: 1'))

  // Two tasks take four seconds each, so the rest is done meanwhile.
  called.add('simulate-research-query')
  const followed = later(peer.followTask('simulate-research-query', { topic: 'tea' }))
  await wire.until('a working task', about('notifications/tasks/status', 'Gathering'))
  const ambiguous = await peer.startTask('simulate-research-query', { topic: 'python', ambiguous: true })
  await wire.until('another working task', about('notifications/tasks/status', 'Gathering'), 2)
  await step('task to cancel', async () => {
    const { taskId } = await peer.startTask('simulate-research-query', { topic: 'coffee' })
    await wire.until('a third working task', about('notifications/tasks/status', 'Gathering'), 3)
    return [await peer.cancelTask(taskId), await peer.getTask(taskId)]
  })
  const asClientTasks = async (): Promise<void> => {
    await step('sampling as a task of the client', () =>
      call('trigger-sampling-request-async', { prompt: 'take your time' }),
    )
    user.answers.push({
      action: 'accept',
      content: { name: 'Ada', favoriteColor: 'Blue', agreeToTerms: true },
    })
    await step('elicitation as a task of the client', () => call('trigger-elicitation-request-async'))
  }
  if (withClientTasks) await asClientTasks()

  const { tools } = await exchanges(peer, { step }, calls)

  await step('cancelled by the client', async () => {
    const gone = new AbortController()
    const { signal } = gone
    const answer = call('trigger-long-running-operation', { duration: 2, steps: 1 }, { signal })
    await peer.ping()
    gone.abort('changed my mind')
    return answer
  })

  await step('roots', () => call('get-roots-list'))
  user.roots = [
    { uri: 'file:///somewhere/project', name: 'project' },
    { uri: 'file:///elsewhere/%C3%A9', name: 'é' },
  ]
  await step('roots changed', () => peer.rootsChanged())
  await wire.until('the server to have the new roots', about('notifications/message', 'Roots updated: 2'))
  await step('roots, changed', () => call('get-roots-list'))

  const logged = about('notifications/message', 'ubscribe Resource request')
  const before = wire.fromServer.filter(logged).length
  await step('level error', () => peer.setLevel('error'))
  await step('subscribed without a word', () => peer.subscribe(dynamicBlob))
  await step('level info', () => peer.setLevel('info'))
  await step('subscribed again', () => peer.subscribe(dynamicText))
  await wire.until('a log message about it', logged, before + 1)
  const updates = wire.fromServer.filter(about('notifications/resources/updated')).length
  await step('two updates on', () => call('toggle-subscriber-updates'))
  await wire.until('updates of both', about('notifications/resources/updated'), updates + 2)
  await step('two updates off', () => call('toggle-subscriber-updates'))
  await step('unsubscribed again', () => peer.unsubscribe(dynamicBlob))
  await wire.until('a log message about that', logged, before + 2)

  await wire.until('a task that needs input', about('notifications/tasks/status', 'input_required'))
  await step('task that needs input', async () => {
    const { statusMessage, ...task } = await peer.getTask(ambiguous.taskId)
    user.answers.push({ action: 'accept', content: { interpretation: 'snake' } })
    const result = await peer.taskResult(ambiguous.taskId)
    return { task, statusMessage, result, after: await peer.getTask(ambiguous.taskId) }
  })
  await step('task followed', async () => outline(await followed))
  await wire.until('both tasks to be done', about('notifications/tasks/status', 'completed'), 2)
  await step('tasks/list', () => peer.listTasks())
  await step('a task that does not exist', () => peer.getTask('no-such-task'))
  await step('cancel a task that is done', () => peer.cancelTask(ambiguous.taskId))
  await step('a task tool called without a task', () => call('simulate-research-query', { topic: 'x' }))

  await step('tools never called', () => tools.filter((name) => !called.has(name)))
  return comparable(recorder.transcript())
}

/** Leaves out what differs over stdio too: the random level of simulated logging, the order of calls at once. */
function comparable({ steps, fromServer, errors }: Transcript): Transcript {
  const log = fromServer['notifications/message ']?.map((params) => {
    const { data } = params as { data: unknown }
    return typeof data === 'string' && /[ -]level/.test(data) ? { level: 'random', data: 'random' } : params
  })
  const asked = fromServer['sampling/createMessage ']?.map((params) => JSON.stringify(params)).sort()
  return {
    steps,
    fromServer: {
      ...fromServer,
      'notifications/message ': log ?? [],
      'sampling/createMessage ': asked ?? [],
    },
    errors,
  }
}

test('with one server process for each session, SDK clients do with server-everything what they do over stdio', async (t) => {
  const sidecar = await startTestSidecar(t, {
    command: everything,
    env: environment,
    flags: { webSocket: true },
    config: { server: { warmSpares: 0 } },
  })
  const target = { command: everything, base: sidecar.base }
  const run = (route: Route): Promise<{ transcript: Transcript; peer: Peer }> =>
    later(
      play(route, target, { tasks: route.sdk === 'v1' }, async (peer) => {
        return { transcript: await everythingScenario(peer, route.sdk === 'v1'), peer }
      }),
    )
  const overStdio = { v1: run(direct.v1), v2: run(direct.v2) }
  const behind = new Map(bridged.map((route) => [route, run(route)]))

  t.test('directly over stdio the scenario leaves out nothing the server has', async (t) => {
    const { transcript, peer } = await overStdio.v1
    t.strictSame(transcript.steps['tools never called'], [])
    t.same(
      new Set(peer.wire.fromServer.map(({ method }) => method)),
      new Set([
        'elicitation/create',
        'notifications/message',
        'notifications/progress',
        'notifications/resources/list_changed',
        'notifications/resources/updated',
        'notifications/tasks/status',
        'notifications/tools/list_changed',
        'roots/list',
        'sampling/createMessage',
        'tasks/get',
        'tasks/result',
      ]),
    )
    t.match(transcript.steps, {
      'url required': { threw: { code: -32042, data: { elicitations: [{ mode: 'url' }] } } },
      'progress for "a token"': { order: [1, 2, 3, 4, 'result'] },
      'echo of a megabyte': true,
      'compressed, as a link': { text: original },
      'task that needs input': { after: { status: 'completed' } },
      'cancelled by the client': { threw: {} },
    })
  })
  for (const [route, playing] of behind) {
    t.test(`${nameOf(route)} sees the same results, notifications and requests of the server`, async (t) => {
      const [{ transcript }, { transcript: expected }] = await Promise.all([playing, overStdio[route.sdk]])
      t.strictSame(transcript.steps['tools never called'], [])
      t.strictSame(transcript.steps, expected.steps)
      t.strictSame(transcript.fromServer, expected.fromServer)
      t.strictSame(transcript.errors, expected.errors)
    })
  }
  t.test('no message was left undelivered', async (t) => {
    await Promise.all(behind.values())
    t.equal(await sidecar.metric('mcp_sidecar_dropped_messages_total{'), 0)
  })
  t.test('a client that looks for the modern era first falls back over HTTP+SSE too', async (t) => {
    await play({ sdk: 'v2', over: 'HTTP+SSE', auto: true }, target, {}, async (peer) => {
      t.equal(peer.era, 'legacy')
      t.match(await peer.call('echo', { message: 'here' }), { content: [{ text: 'Echo: here' }] })
    })
  })
})

test('with one server process for all, SDK clients do with server-everything what does not depend on a session', async (t) => {
  const sidecar = await startTestSidecar(t, {
    command: everything,
    env: environment,
    flags: { webSocket: true, topology: 'shared' },
  })
  const target = { command: everything, base: sidecar.base }
  const run = (route: Route): Promise<Transcript> =>
    play(route, target, {}, async (peer) => {
      const recorder = new Recorder(peer)
      await recorder.step('capabilities', () => {
        const { tasks: _, ...capabilities } = peer.server.capabilities
        return capabilities
      })
      await exchanges(peer, { step: recorder.step.bind(recorder) }, calling(peer))
      return comparable(recorder.transcript())
    })
  const overStdio = { v1: later(run(direct.v1)), v2: later(run(direct.v2)) }
  // One after the other: of two that call at once, the sidecar refuses to guess whom the server asks.
  for (const route of fewer) {
    t.test(`${nameOf(route)} sees the same results, notifications and requests of the server`, async (t) => {
      const transcript = await run(route)
      const expected = await overStdio[route.sdk]
      t.strictSame(transcript.steps, expected.steps)
      for (const kind of [
        'elicitation/create',
        'sampling/createMessage',
        'notifications/resources/updated',
      ]) {
        t.strictSame(transcript.fromServer[`${kind} `], expected.fromServer[`${kind} `], kind)
      }
      for (const token of ['a token', '424242', 'counted']) {
        const channel = `notifications/progress ${token}`
        t.strictSame(transcript.fromServer[channel], expected.fromServer[channel], channel)
      }
      t.strictSame(transcript.errors, [])
    })
  }
  t.test('tasks, whose owner nobody could tell, are not offered', async (t) => {
    await play({ sdk: 'v1', over: 'Streamable HTTP' }, target, {}, async (peer) => {
      t.notOk(peer.server.capabilities.tasks)
      await t.rejects(peer.listTasks(), { code: -32601 })
    })
  })
  t.test('a call that one client cancelled does not keep another from being asked', async (t) => {
    const route = { sdk: 'v1', over: 'Streamable HTTP' } as const
    await play(route, target, {}, async (peer) => {
      const gone = new AbortController()
      const { signal } = gone
      const answer = peer.call('trigger-long-running-operation', { duration: 2, steps: 1 }, { signal })
      await peer.ping()
      gone.abort()
      await t.rejects(answer)
    })
    await play(route, target, {}, async (peer) => {
      const asked = async (): Promise<boolean> => {
        const result = await peer.call('trigger-sampling-request', { prompt: 'and me?' })
        return result.isError !== true
      }
      await until(asked, 'the server process to be allowed to ask the second client')
    })
  })
})

// --- server-filesystem -------------------------------------------------------------------------------------------

const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

/** A folder for one test, without links on the way to it. */
async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(await realpath(tmpdir()), 'real-servers-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

/** @param dir a folder that only this run has, within the one that the server was started for */
async function filesystemScenario(peer: Peer, dir: string, withRoots: boolean): Promise<Transcript> {
  const other = join(dir, '..', 'other')
  const recorder = new Recorder(peer, { [dir]: '<folder>', [join(dir, '..')]: '<base>' })
  const step = recorder.step.bind(recorder)
  const { user, wire } = peer
  const { call, called } = calling(peer)
  const at = (...parts: string[]): string => join(dir, ...parts)
  const allowed = async (path: string): Promise<void> => {
    const listed = async (): Promise<string> => (await call('list_allowed_directories')).content[0].text
    await until(async () => (await listed()).endsWith(`\n${path}`), `${path} to be allowed`, 20_000)
  }
  await step('initialize', () => peer.server)
  if (withRoots) {
    await wire.until('a request for the roots', about('roots/list'))
    await allowed(dir)
  }
  const tools = await step('tools/list', () => peer.listTools())
  await step('allowed', () => call('list_allowed_directories'))
  await step('a prompt of a server without prompts', () => peer.request('prompts/get', { name: 'x' }))

  const text = `first\n"second" \u2028 é 日本 🙂\nthird\n`
  const long = Array.from({ length: 2000 }, (_, i) => `line ${i} of a long file é`).join('\n')
  await writeFile(at('dot.png'), Buffer.from(png, 'base64'))
  await writeFile(at('sound.wav'), Buffer.from('RIFF$\0\0\0WAVE'))
  await writeFile(at('raw.bin'), Buffer.from(Array.from({ length: 256 }, (_, i) => i)))
  await step('create folder', () => call('create_directory', { path: at('a', 'b') }))
  await step('write', () => call('write_file', { path: at('a', 'text.txt'), content: text }))
  await step('write much', () => call('write_file', { path: at('a', 'long.txt'), content: long }))
  await step('read, the old way', () => call('read_file', { path: at('a', 'text.txt') }))
  await step('read', () => call('read_text_file', { path: at('a', 'text.txt') }))
  await step('read much', () => call('read_text_file', { path: at('a', 'long.txt') }))
  await step('head', () => call('read_text_file', { path: at('a', 'long.txt'), head: 2 }))
  await step('tail', () => call('read_text_file', { path: at('a', 'long.txt'), tail: 2 }))
  await step('head and tail', () => call('read_text_file', { path: at('a', 'long.txt'), head: 1, tail: 1 }))
  for (const name of ['dot.png', 'sound.wav', 'raw.bin']) {
    await step(`read ${name}`, () => call('read_media_file', { path: at(name) }))
  }
  await step('read several', () =>
    call('read_multiple_files', { paths: [at('a', 'text.txt'), at('missing'), at('a', 'text.txt')] }),
  )
  const edits = [{ oldText: 'third', newText: 'fourth 🙂' }]
  await step('edit, dry', () => call('edit_file', { path: at('a', 'text.txt'), edits, dryRun: true }))
  await step('edit', () => call('edit_file', { path: at('a', 'text.txt'), edits }))
  await step('edit what is not there', () => call('edit_file', { path: at('a', 'text.txt'), edits }))
  await step('list', () => call('list_directory', { path: at('a') }))
  await step('list with sizes', () => call('list_directory_with_sizes', { path: at('a') }))
  await step('list by size', () => call('list_directory_with_sizes', { path: at('a'), sortBy: 'size' }))
  await step('tree', () => call('directory_tree', { path: dir, excludePatterns: ['*.bin'] }))
  await step('move', () =>
    call('move_file', { source: at('a', 'text.txt'), destination: at('a', 'b', 'moved.txt') }),
  )
  await step('move onto nothing', () => call('move_file', { source: at('gone'), destination: at('there') }))
  await step('search', () => call('search_files', { path: dir, pattern: '**/*.txt' }))
  await step('information', () => call('get_file_info', { path: at('a', 'b', 'moved.txt') }))
  await step('outside', () => call('read_text_file', { path: '/etc/hostname' }))
  await step('arguments that do not fit', () => call('read_text_file', { path: 7 }))
  await step('a tool that does not exist', () => peer.call('format_disk'))
  if (withRoots) {
    user.roots = [{ uri: pathToFileURL(other).href }]
    await step('roots changed', () => peer.rootsChanged())
    await allowed(other)
    await step('allowed, changed', () => call('list_allowed_directories'))
    await step('no longer allowed', () => call('read_text_file', { path: at('a', 'long.txt') }))
    await step('allowed now', () => call('read_text_file', { path: join(other, 'note.txt') }))
  }
  await step('tools never called', () =>
    (tools?.tools ?? []).filter(({ name }) => !called.has(name)).map(({ name }) => name),
  )
  return recorder.transcript()
}

for (const topology of ['per-session', 'shared']) {
  test(`with a ${topology} process SDK clients do with server-filesystem what they do over stdio`, async (t) => {
    const base = await folder(t)
    await mkdir(join(base, 'other'))
    await writeFile(join(base, 'other', 'note.txt'), 'found me')
    const command = commandOf('server-filesystem', base)
    const sidecar = await startTestSidecar(t, {
      command,
      env: environment,
      flags: { webSocket: true, topology },
      config: { server: { warmSpares: 0 } },
    })
    // A shared server has no roots of one client.
    const roots = topology === 'per-session'
    let runs = 0
    const run = async (route: Route): Promise<Transcript> => {
      const dir = join(base, `run-${++runs}`)
      await mkdir(dir)
      const abilities = { roots }
      return play(route, { command, base: sidecar.base }, abilities, async (peer) => {
        peer.user.roots = [{ uri: pathToFileURL(dir).href, name: 'mine' }]
        return filesystemScenario(peer, dir, roots)
      })
    }
    const overStdio = { v1: later(run(direct.v1)), v2: later(run(direct.v2)) }
    const behind = new Map(fewer.map((route) => [route, later(run(route))]))
    for (const [route, playing] of behind) {
      t.test(`${nameOf(route)} sees the same`, async (t) => {
        const [transcript, expected] = await Promise.all([playing, overStdio[route.sdk]])
        t.strictSame(transcript.steps['tools never called'], [])
        t.strictSame(transcript, expected)
      })
    }
  })
}

// --- server-memory -----------------------------------------------------------------------------------------------

/** Leaves the graph empty, as it found it: all processes behind one sidecar keep it in the same file. */
async function memoryScenario(peer: Peer): Promise<Transcript> {
  const recorder = new Recorder(peer)
  const step = recorder.step.bind(recorder)
  const { wire } = peer
  const { call, called } = calling(peer)
  const graph = 'memory://knowledge-graph'
  let changes = 0
  const change = async (name: string, tool: string, args: object): Promise<void> => {
    await step(name, () => call(tool, args))
    await wire.until(`an update after ${name}`, about('notifications/resources/updated', graph), ++changes)
  }
  await step('initialize', () => peer.server)
  const tools = await step('tools/list', () => peer.listTools())
  await step('resources/list', () => peer.listResources())
  await step('read, empty', () => peer.readResource(graph))
  await step('subscribe', () => peer.subscribe(graph))
  await change('create entities', 'create_entities', {
    entities: [
      { name: 'Ada', entityType: 'person', observations: ['wrote "notes"\n', 'é 日本 🙂'] },
      { name: 'Engine', entityType: 'machine', observations: [] },
      { name: 'Charles', entityType: 'person', observations: ['had an idea'] },
    ],
  })
  await change('create one twice', 'create_entities', {
    entities: [{ name: 'Ada', entityType: 'person', observations: [] }],
  })
  await change('create relations', 'create_relations', {
    relations: [
      { from: 'Ada', to: 'Engine', relationType: 'describes' },
      { from: 'Charles', to: 'Engine', relationType: 'designs' },
    ],
  })
  await change('add observations', 'add_observations', {
    observations: [{ entityName: 'Engine', contents: ['analytical', 'unfinished'] }],
  })
  await step('observe what is not there', () =>
    call('add_observations', { observations: [{ entityName: 'Nobody', contents: ['x'] }] }),
  )
  await step('read graph', () => call('read_graph'))
  await step('search', () => call('search_nodes', { query: 'IDEA' }))
  await step('search for nothing', () => call('search_nodes', { query: 'zeppelin' }))
  await step('open', () => call('open_nodes', { names: ['Ada', 'Engine'] }))
  await step('read', () => peer.readResource(graph))
  await change('delete an observation', 'delete_observations', {
    deletions: [{ entityName: 'Engine', observations: ['unfinished'] }],
  })
  await change('delete a relation', 'delete_relations', {
    relations: [{ from: 'Charles', to: 'Engine', relationType: 'designs' }],
  })
  await step('read graph again', () => call('read_graph'))
  await step('arguments that do not fit', () => call('create_entities', { entities: 'none' }))
  await step('read what does not exist', () => peer.readResource('memory://nothing'))
  await change('delete entities', 'delete_entities', { entityNames: ['Ada', 'Engine', 'Charles'] })
  await step('unsubscribe', () => peer.unsubscribe(graph))
  await step('change without a subscription', () => call('delete_entities', { entityNames: ['Ada'] }))
  await step('read, empty again', () => peer.readResource(graph))
  await step('tools never called', () =>
    (tools?.tools ?? []).filter(({ name }) => !called.has(name)).map(({ name }) => name),
  )
  return recorder.transcript()
}

test('SDK clients do with server-memory what they do over stdio', async (t) => {
  const base = await folder(t)
  const command = commandOf('server-memory')
  const run = (route: Route, sidecar?: TestSidecar): Promise<Transcript> => {
    const env = { ...environment, MEMORY_FILE_PATH: join(base, `${route.sdk}.jsonl`) }
    const target = { command, env, ...(sidecar === undefined ? {} : { base: sidecar.base }) }
    return play(route, target, {}, memoryScenario)
  }
  const overStdio = { v1: later(run(direct.v1)), v2: later(run(direct.v2)) }
  for (const topology of ['per-session', 'shared']) {
    const sidecar = await startTestSidecar(t, {
      command,
      env: environment,
      flags: { webSocket: true, topology },
      config: { server: { envSet: { MEMORY_FILE_PATH: join(base, `${topology}.jsonl`) } } },
    })
    // One after the other: they share a file.
    for (const route of fewer) {
      t.test(`${nameOf(route)} sees the same, with a ${topology} process`, async (t) => {
        const transcript = await run(route, sidecar)
        t.strictSame(transcript.steps['tools never called'], [])
        t.strictSame(transcript, await overStdio[route.sdk])
      })
    }
  }
})
