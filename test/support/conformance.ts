/** What clients of either era have the server of the conformance suites do, whichever era that serves. */
import { fileURLToPath } from 'node:url'
import type { Peer } from './clients.ts'
import { about, asking, inAnyOrder, orderOf, watching } from './either-era.ts'
import { Recorder, type Transcript } from './transcript.ts'

const script = fileURLToPath(new URL('../fixtures/conformance-server.mjs', import.meta.url))

export const conformanceServer = (era: 'legacy' | 'modern' | 'dual'): string[] => [
  process.execPath,
  script,
  era,
]

type Step = Recorder['step']

export async function conformanceScenario(peer: Peer): Promise<Transcript> {
  const recorder = new Recorder(peer)
  const step = recorder.step.bind(recorder)
  await step('server', () => peer.server)
  await step('tools/list', () => peer.listTools())
  await step('prompts/list', () => peer.listPrompts())
  await step('resources/list', () => peer.listResources())
  await step('resources/templates/list', () => peer.listResourceTemplates())
  await contents(peer, step)
  await promptsAndResources(peer, step)
  await questions(peer, step)
  await step('progress', async () => {
    const result = await peer.call('test_tool_with_progress', {}, { token: 'mine' })
    return { result, order: orderOf(peer, 'mine') }
  })
  await step('logging', async () => {
    if (peer.era !== 'modern') await peer.setLevel('debug')
    const before = peer.wire.fromServer.length
    const result = await peer.call('test_tool_with_logging', {}, { logLevel: 'info' })
    const logged = peer.wire.fromServer.slice(before).filter(about('notifications/message'))
    return { result, logged: logged.map(({ params }) => params) }
  })
  await step('changed lists', () =>
    watching(peer, { lists: ['tools', 'prompts'] }, async () => {
      const { wire } = peer
      const count = (method: string) => wire.fromServer.filter(about(method)).length
      for (const list of ['tool', 'prompt'] as const) {
        const method = `notifications/${list}s/list_changed`
        const before = count(method)
        await peer.call(`test_trigger_${list}_change`)
        await wire.until(`a changed list of ${list}s`, about(method), before + 1)
      }
    }),
  )
  return recorder.transcript()
}

async function contents(peer: Peer, step: Step): Promise<void> {
  for (const tool of [
    'test_simple_text',
    'test_image_content',
    'test_audio_content',
    'test_embedded_resource',
    'test_multiple_content_types',
    'test_error_handling',
    'test_reconnection',
    'test_streaming_elicitation',
    'no_such_tool',
  ]) {
    await step(tool, () => peer.call(tool))
  }
  await step('header', () => peer.call('test_x_mcp_header', { region: 'eu', level: 3 }))
  await step('JSON Schema', () => peer.call('json_schema_2020_12_tool', { name: 'Zoë', phone: '1' }))
  await step('arguments that do not fit', () => peer.call('test_sampling', { prompt: 7 }))
}

async function promptsAndResources(peer: Peer, step: Step): Promise<void> {
  await step('prompt', () => peer.getPrompt('test_simple_prompt'))
  const args = { arg1: 'é', arg2: '🙂' }
  await step('prompt with arguments', () => peer.getPrompt('test_prompt_with_arguments', args))
  await step('prompt without them', () => peer.getPrompt('test_prompt_with_arguments'))
  await step('prompt with a resource', () =>
    peer.getPrompt('test_prompt_with_embedded_resource', { resourceUri: 'test://static-text' }),
  )
  await step('prompt with an image', () => peer.getPrompt('test_prompt_with_image'))
  await step('completion', () =>
    peer.complete({
      ref: { type: 'ref/prompt', name: 'test_prompt_with_arguments' },
      argument: { name: 'arg1', value: 'par' },
    }),
  )
  for (const uri of ['test://static-text', 'test://static-binary', 'test://template/7/data']) {
    await step(uri, () => peer.readResource(uri))
  }
}

async function questions(peer: Peer, step: Step): Promise<void> {
  const { user } = peer
  const accept = (content: Record<string, string | boolean | string[]>) => {
    user.answers.push({ action: 'accept', content })
  }
  const call = (name: string, args?: object) => () => asking(peer, () => peer.call(name, args))
  await step('sampling', call('test_sampling', { prompt: 'say hello' }))
  await step('sampling, by its result', call('test_input_required_result_sampling'))
  await step('roots', call('test_input_required_result_list_roots'))
  accept({ response: 'é 日本 🙂' })
  await step('form accepted', call('test_elicitation', { message: 'Say something' }))
  for (const action of ['decline', 'cancel'] as const) {
    user.answers.push({ action })
    await step(`form, ${action}`, call('test_elicitation', { message: 'Say something' }))
  }
  user.answers.push({ action: 'decline' })
  await step('form with defaults', call('test_elicitation_sep1034_defaults'))
  accept({ untitledSingle: 'option2', titledMulti: ['value1', 'value3'] })
  await step('form with enumerations', call('test_elicitation_sep1330_enums'))
  accept({ name: 'Ada' })
  await step('form, by its result', call('test_input_required_result_elicitation'))
  accept({ ok: true })
  await step('state', call('test_input_required_result_request_state'))
  accept({ name: 'Ada' })
  accept({ color: 'blue' })
  await step('two rounds', call('test_input_required_result_multi_round'))
  accept({ name: 'Ada' })
  await step('three at once', async () => {
    const { result, asked } = await call('test_input_required_result_multiple_inputs')()
    return { result, asked: inAnyOrder(asked) }
  })
  accept({ context: 'here' })
  await step('prompt that asks', () =>
    asking(peer, () => peer.getPrompt('test_input_required_result_prompt')),
  )
}
