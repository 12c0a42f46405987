/** What clients of either era have server-everything do. */
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import type { Json, Peer } from './clients.ts'
import { about, asking, inAnyOrder, orderOf, watching } from './either-era.ts'
import { Recorder, type Transcript } from './transcript.ts'

/** The command of an official server, unchanged. */
export function official(server: string, ...args: string[]): string[] {
  const script = new URL(`../../node_modules/@modelcontextprotocol/${server}/dist/index.js`, import.meta.url)
  return [process.execPath, fileURLToPath(script), ...args]
}

const dynamicText = 'demo://resource/dynamic/text/7'
const original = 'compress me, é and 🙂 too'

/**
 * Everything but tasks, which do not cross eras, and roots, which the server remembers. Needs a process of its own: it
 * switches on and off what the server does for all.
 */
export async function everythingScenario(peer: Peer): Promise<Transcript> {
  const recorder = new Recorder(peer)
  const step = recorder.step.bind(recorder)
  const { wire } = peer
  const called = new Set(['simulate-research-query', 'get-roots-list'])
  const call: Peer['call'] = (name, ...rest) => {
    called.add(name)
    return peer.call(name, ...rest)
  }
  await step('server', () => peer.server)
  const tools = await step('tools/list', async () => {
    const { tools } = await peer.listTools()
    return tools.filter(({ name }) => name !== 'simulate-research-query')
  })
  await lists(peer, step)
  await contents(step, call)
  await prompts(peer, step)
  await resources(peer, step, call)
  await questions(peer, step, call)

  for (const token of ['a token', 424_242]) {
    await step(`progress for ${JSON.stringify(token)}`, async () => {
      const result = await call('trigger-long-running-operation', { duration: 0.2, steps: 4 }, { token })
      return { result, order: orderOf(peer, token) }
    })
  }
  const updated = about('notifications/resources/updated')
  await watching(peer, { uris: [dynamicText] }, async () => {
    await step('updates on', () => call('toggle-subscriber-updates'))
    await wire.until('an update', updated)
    await step('updates off', () => call('toggle-subscriber-updates'))
  })
  await step('logging', async () => {
    if (peer.era !== 'modern') await peer.setLevel('debug')
    const said = about('notifications/message', 'level')
    await call('toggle-simulated-logging', {}, { logLevel: 'debug' })
    await wire.until('a simulated log message', said)
    await call('toggle-simulated-logging')
  })
  await step('cancelled', async () => {
    const gone = new AbortController()
    const options = { signal: gone.signal, token: 'cancelled' }
    const answer = call('trigger-long-running-operation', { duration: 20, steps: 400 }, options)
    await wire.until('progress', about('notifications/progress', '"cancelled"'))
    gone.abort()
    return answer.then(
      () => 'an answer',
      () => 'none',
    )
  })
  // Last of all: behind a sidecar these are spread over several processes.
  await step('three that ask at once', async () => {
    const prompts = ['one', 'two', 'three'].map((prompt) => call('trigger-sampling-request', { prompt }))
    const { result, asked } = await asking(peer, () => Promise.all(prompts))
    return { result, asked: inAnyOrder(asked) }
  })
  await step('tools never called', () =>
    (tools ?? []).filter(({ name }) => !called.has(name)).map(({ name }) => name),
  )
  const { fromServer, ...transcript } = recorder.transcript()
  // How much progress a cancelled call made first is chance.
  const { 'notifications/progress cancelled': _, ...others } = fromServer
  return { ...transcript, fromServer: others }
}

type Step = Recorder['step']

async function lists(peer: Peer, step: Step): Promise<void> {
  await step('prompts/list', () => peer.listPrompts())
  await step('resources/templates/list', () => peer.listResourceTemplates())
  const documents = await step('resources/list', async () => {
    const { resources } = await peer.listResources()
    return resources.filter(({ uri }) => uri.includes('/static/'))
  })
  for (const { uri } of documents ?? []) await step(`read ${uri}`, () => peer.readResource(uri))
}

async function contents(step: Step, call: Peer['call']): Promise<void> {
  await step('echo', () => call('echo', { message: 'a "quoted" line\nand \u2028 é 日本 🙂' }))
  await step('echo of a megabyte', async () => {
    const message = 'a megabyte, é and 🙂; '.repeat(41_943)
    const [{ text }] = (await call('echo', { message })).content
    return text === `Echo: ${message}`
  })
  for (const messageType of ['error', 'success', 'debug']) {
    await step(`annotated ${messageType}`, () =>
      call('get-annotated-message', { messageType, includeImage: messageType === 'success' }),
    )
  }
  await step('environment', async () => JSON.parse((await call('get-env')).content[0].text))
  await step('resource links', () => call('get-resource-links', { count: 4 }))
  await step('reference', () => call('get-resource-reference', { resourceType: 'Blob', resourceId: 4 }))
  await step('structured content', () => call('get-structured-content', { location: 'Chicago' }))
  await step('sum', () => call('get-sum', { a: 0.1, b: 9_007_199_254_740_991 }))
  await step('image', () => call('get-tiny-image'))
  await step('a tool that does not exist', () => call('no-such-tool'))
  await step('arguments that do not fit', () => call('get-sum', { a: 'one' }))
}

async function prompts(peer: Peer, step: Step): Promise<void> {
  await step('simple prompt', () => peer.getPrompt('simple-prompt'))
  await step('prompt with arguments', () => peer.getPrompt('args-prompt', { city: 'Köln', state: 'NRW' }))
  await step('prompt without its argument', () => peer.getPrompt('args-prompt', {}))
  await step('prompt with a resource', () =>
    peer.getPrompt('resource-prompt', { resourceType: 'Text', resourceId: '5' }),
  )
  await step('a prompt that does not exist', () => peer.getPrompt('no-such-prompt'))
  const complete = (ref: object, name: string, value: string, context?: object) =>
    peer.complete({ ref, argument: { name, value }, ...(context === undefined ? {} : { context }) })
  const ref = { type: 'ref/prompt', name: 'completable-prompt' }
  await step('complete a department', () => complete(ref, 'department', 'S'))
  await step('complete a name in its department', () =>
    complete(ref, 'name', '', { arguments: { department: 'Marketing' } }),
  )
  const template = { type: 'ref/resource', uri: 'demo://resource/dynamic/text/{resourceId}' }
  await step('complete a resource id', () => complete(template, 'resourceId', '12'))
}

async function resources(peer: Peer, step: Step, call: Peer['call']): Promise<void> {
  await step('read text', () => peer.readResource(dynamicText))
  await step('read binary', () => peer.readResource('demo://resource/dynamic/blob/8'))
  await step('read what does not exist', () => peer.readResource('demo://resource/nothing'))
  await watching(peer, { lists: ['resources'] }, async () => {
    await step('compressed', async () => {
      const data = `data:text/plain,${encodeURIComponent(original)}`
      const result = await call('gzip-file-as-resource', { name: 'a.gz', data, outputType: 'resourceLink' })
      const { contents } = await peer.readResource(result.content[0].uri)
      return { result, text: gunzipSync(Buffer.from(contents[0].blob, 'base64')).toString() }
    })
    await peer.wire.until('a changed list of resources', about('notifications/resources/list_changed'))
  })
}

async function questions(peer: Peer, step: Step, call: Peer['call']): Promise<void> {
  const { user } = peer
  const sample = (prompt: string) => call('trigger-sampling-request', { prompt, maxTokens: 50 })
  await step('sampling', () => asking(peer, () => sample('say hello')))
  const content = {
    name: 'Zoë 🙂',
    check: true,
    email: 'zoe@example.org',
    integer: 7,
    // Fractions are forgotten in the JSON schema of 2025-11-25, by which messages are checked here.
    number: 25,
    untitledMultipleSelectEnum: ['Piano', 'Drums'],
  }
  for (const answer of [
    { action: 'accept', content },
    { action: 'decline' },
    { action: 'cancel' },
  ] as const) {
    await step(`form, ${answer.action}`, () => {
      user.answers.push(answer)
      return asking(peer, () => call('trigger-elicitation-request'))
    })
  }
  const visit = { url: 'https://example.org/consent?a=1&b=2', message: 'Please visit' }
  for (const action of ['accept', 'decline', 'cancel'] as const) {
    await step(`url, ${action}`, () => {
      user.answers.push({ action })
      return asking(peer, () =>
        call('trigger-url-elicitation', { ...visit, elicitationId: `mine-${action}` }),
      )
    })
  }
  await step('url, by an error first', async () => {
    const again = { ...visit, elicitationId: 'again', errorPath: true }
    user.answers.push({ action: 'accept' })
    if (peer.era === 'modern') user.answers.push({ action: 'accept' })
    try {
      return await call('trigger-url-elicitation', again)
    } catch (thrown) {
      // In the handshake era the client itself sees to it, and calls again.
      if (peer.era === 'modern' || (thrown as Json).code !== -32042) throw thrown
      return await call('trigger-url-elicitation', again)
    }
  })
}
