/** Rules in front of a real server: who may do what, on every transport and in both eras. */
import t from 'tap'
import { systemClock } from '../../src/observe/clock.ts'
import { callers, startConfigured } from '../support/callers.ts'
import { ask, listenTo, modern, refusedWith, tool } from '../support/modern.ts'
import { isRefusal, refused } from '../support/refusal.ts'
import { openVoices, type Reply, type Voice } from '../support/voices.ts'
import { call, openSession, post } from '../support/wire.ts'

const who = callers(t)
const people = {
  alice: who.of('alice'),
  bob: who.of('bob', { groups: ['ops', 'staff'] }),
  robot: who.account('team-a', 'robot'),
  mallory: who.of('mallory', { groups: ['user:alice', 'alice', 'OPS'], roles: ['ops'] }),
}
type Person = keyof typeof people

const rules = `
authorization:
  rules:
  - id: rule-for-everyone
    principals: ['*']
    tools: [echo]
  - id: rule-for-alice
    principals: ['user:alice']
    permissions:
    - { tools: [lines, 'p*d'], actions: [tools/call] }
    - { resources: ['doc://open/*'], actions: [resources/read] }
    - { prompts: [hello], actions: [prompts/get] }
  - id: rule-for-ops
    principals: ['group:ops']
    permissions:
    - { tools: [cwd], actions: ['*'] }
    - { tools: [crash], actions: [tools/list] }
  - id: rule-for-robots
    principals: ['serviceaccount:team-a/robot']
    permissions: [{ tools: [params], actions: [tools/call] }]
`
const base = `
${who.auth}
listen: { webSocket: true }
server: { warmSpares: 0, poolSize: 1 }
`
const sidecar = await startConfigured(t, base + rules)
const { url, logs } = sidecar

const voices: Record<Person, Promise<Voice[]>> = {
  alice: openVoices(sidecar, people.alice),
  bob: openVoices(sidecar, people.bob),
  robot: openVoices(sidecar, people.robot),
  mallory: openVoices(sidecar, people.mallory, ['Streamable HTTP', 'modern HTTP']),
}
for (const each of Object.values(voices)) each.catch(() => {})

/** A mark that is in no other request: what the server has not read of it, it was not asked. */
let marks = 0
const marked = () => ({ text: `mark-${++marks}-` })

// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
const textOf = ({ json }: Reply): any => json.result.content[0].text

/** Nothing a caller could learn from about rules and what they name. */
function isDenied(t: Tap.Test, voice: Voice, reply: Reply, names: readonly string[] = []): void {
  isRefusal(t, reply.json, 'ERR_DENIED', reply.json.id)
  t.equal(reply.json.error.message, 'This operation is not permitted.')
  if (voice.name.endsWith('HTTP')) t.equal(reply.status, 403, `${voice.name}: 403`)
  for (const name of [...names, 'rule', 'alice', 'ops', 'authorization'])
    t.notOk(reply.text.includes(name), `${voice.name} says nothing of ${name}`)
}
type Tap = typeof import('tap')
declare namespace Tap {
  type Test = import('tap').Test
}

t.test('a caller may use what rules grant to its name, groups or service account, and no more', async (t) => {
  const granted: Record<Person, readonly string[]> = {
    alice: ['echo', 'lines', 'pid'],
    bob: ['echo', 'cwd'],
    robot: ['echo', 'params'],
    mallory: ['echo'],
  }
  const all = ['echo', 'lines', 'pid', 'cwd', 'params', 'crash', 'env', 'no-such-tool', 'Echo', 'echo ', '*']
  for (const [person, names] of Object.entries(granted)) {
    for (const voice of await voices[person as Person]) {
      for (const name of all) {
        const reply = await voice.ask('tools/call', { name, arguments: {} })
        if (names.includes(name)) t.ok(reply.json.result, `${person} may call ${name} over ${voice.name}`)
        else isDenied(t, voice, reply, [name === '*' || name === 'echo ' ? person : name])
      }
    }
  }
})
