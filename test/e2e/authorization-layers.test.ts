/** Several sources of authorization at once: OME documents, rules of our own, Cedar. Each must permit. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t from 'tap'
import { runCli } from '../../src/cli.ts'
import { callers, startConfigured } from '../support/callers.ts'
import { folder } from '../support/processes.ts'
import { recital } from '../support/recital.ts'
import { isRefusal } from '../support/refusal.ts'
import { scriptedCommand } from '../support/sidecar.ts'
import { openVoices, type Voice } from '../support/voices.ts'

const who = callers(t)
const people = {
  alice: who.of('alice', { groups: ['dev'], level: 3 }),
  bob: who.of('bob', { groups: ['dev', 'ops'], level: 1 }),
  robot: who.account('team-a', 'ci'),
  stranger: who.of('stranger'),
}
type Person = keyof typeof people

const place = folder(t)
const write = (name: string, text: string): string => {
  const file = join(place, name)
  writeFileSync(file, text)
  return file
}

const documents = write(
  'documents.yaml',
  `apiVersion: ome.io/v1alpha1
kind: MCPServer
metadata: { name: scripted, namespace: team-a }
spec:
  hosted: { podSpec: { spec: { containers: [{ name: mcp-server, image: scripted, command: [scripted] }] } } }
  capabilities: { tools: true, resources: true, prompts: false }
  toolsFilter: [echo, pid, cwd, params, lines, notifications]
---
apiVersion: ome.io/v1alpha1
kind: MCPRoute
metadata: { name: scripted, namespace: team-a }
spec:
  backendRefs: [{ serverRef: { name: scripted } }]
  authorization:
    rules:
    - principals: ['group:dev', 'serviceaccount:ci']
      permissions: [{ tools: [echo, cwd, params, lines], actions: [tools/call, tools/list] }]
    - principals: ['user:bob']
      permissions: [{ tools: [pid], actions: [tools/call] }]
---
defaultAuthorization:
  rules:
  - principals: ['*']
    permissions: [{ tools: [echo, cwd, pid, lines, env], actions: [tools/call, tools/list] }]
    conditions: [{ type: IPAddress, value: 10.66.0.0/16, operator: NotIn }]
`,
)

const own = `
${who.auth}
listen: { webSocket: true, trustedProxies: [127.0.0.1] }
server: { warmSpares: 0, topology: shared }
manifests: [${documents}]
authorization:
  rules:
  - { principals: ['group:dev', 'serviceaccount:ci'], tools: [echo, pid, params, lines, env] }
  - { principals: ['user:alice'], tools: [cwd] }
`

/** What comes of a call of each tool. */
async function outcomes(voice: Voice, names: readonly string[]): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const name of names) {
    const { json } = await voice.ask('tools/call', { name, arguments: {} })
    found[name] = json.error === undefined ? 'ok' : (json.error.data?.reason ?? String(json.error.code))
  }
  return found
}
const listed = async (voice: Voice, headers?: Record<string, string>): Promise<string[]> =>
  (await voice.ask('tools/list', {}, headers)).json.result.tools
    .map(({ name }: { name: string }) => name)
    .toSorted()

t.test('gateway defaults, route and rules of our own must each permit, and the tools filter', async (t) => {
  const sidecar = await startConfigured(t, own)
  const names = ['echo', 'pid', 'cwd', 'params', 'lines', 'env']
  const no = 'ERR_DENIED'
  // Of `params` the gateway knows nothing, `cwd` is bob's nowhere but on the route, `env` is outside the filter.
  const common = { echo: 'ok', params: no, lines: 'ok', env: 'ERR_TOOL_UNKNOWN' }
  const wanted: Record<Person, Record<string, string>> = {
    alice: { ...common, pid: no, cwd: 'ok' },
    bob: { ...common, pid: 'ok', cwd: no },
    robot: { ...common, pid: no, cwd: no },
    stranger: { ...common, echo: no, lines: no, pid: no, cwd: no },
  }
  for (const [person, outcome] of Object.entries(wanted)) {
    for (const voice of await openVoices(sidecar, people[person as Person])) {
      t.same(await outcomes(voice, names), outcome, `${person} over ${voice.name}`)
      const visible = names.filter((name) => outcome[name] === 'ok').toSorted()
      t.same(await listed(voice), visible, `${person} sees these over ${voice.name}`)
      const prompts = await voice.ask('prompts/list', {})
      t.equal(prompts.json.error?.code, -32601, 'prompts are switched off')
    }
  }
  const [voice] = (await openVoices(sidecar, people.alice, ['Streamable HTTP'])) as [Voice]
  const inside = { 'X-Forwarded-For': '10.66.1.2' }
  t.same(await listed(voice, inside), [], 'a condition of the gateway closes everything')
  const { json, status } = await voice.ask('tools/call', { name: 'echo', arguments: {} }, inside)
  t.equal(status, 403)
  isRefusal(t, json, no, json.id)
})

const policies = write(
  'policies.cedar',
  `// Who may do what.
@id("dev-tools")
permit(principal in THVGroup::"dev", action == Action::"call_tool", resource in MCP::"scripted")
when { ["echo", "pid", "params", "lines", "cwd", "sleep"].contains(resource.name) };

@id("no-big-numbers")
forbid(principal, action == Action::"call_tool", resource == Tool::"echo")
when { context has arg_n && context.arg_n > 5 };

@id("unguarded")
forbid(principal, action == Action::"call_tool", resource == Tool::"params")
when { context.arg_level > 3 };

@id("senior")
forbid(principal, action == Action::"call_tool", resource == Tool::"pid")
unless { principal has claim_level && principal.claim_level >= 3 };

@id("open-documents")
permit(principal, action == Action::"read_resource", resource)
when { resource.uri like "doc://open/*" };
`,
)
const cedar = `authorization:
  cedar: { policyFiles: [${policies}], server: scripted }`
const plain = own.slice(0, own.indexOf('manifests:'))

t.test('Cedar permits, forbids, looks at arguments and claims, and denies where a policy errs', async (t) => {
  const sidecar = await startConfigured(t, plain + cedar)
  for (const voice of await openVoices(sidecar, people.alice)) {
    const reason = async (name: string, args: object): Promise<string> => {
      const { json, text } = await voice.ask('tools/call', { name, arguments: args })
      if (json.error !== undefined) t.notMatch(text, /cedar|policy|senior|dev-tools|unguarded|no-big/i)
      return json.error?.data?.reason ?? 'ok'
    }
    const no = 'ERR_DENIED'
    const asked: readonly (readonly [string, object, string])[] = [
      ['echo', {}, 'ok'],
      ['echo', { n: 5 }, 'ok'],
      ['echo', { n: 6 }, no],
      ['echo', { n: 'six' }, no],
      ['echo', { n: { six: 6 } }, 'ok'],
      ['echo', { m: 6 }, 'ok'],
      ['pid', {}, 'ok'],
      ['env', {}, no],
      ['params', { level: 2 }, 'ok'],
      ['params', { level: 4 }, no],
      ['params', {}, no],
      ['params', { level: '2' }, no],
      ['params', { level: null }, no],
    ]
    for (const [name, args, wanted] of asked)
      t.equal(await reason(name, args), wanted, `${voice.name}: ${name} ${JSON.stringify(args)}`)
    const { json } = await voice.ask('resources/read', { uri: 'doc://secret' })
    isRefusal(t, json, no, json.id)
    const open = await voice.ask('resources/read', { uri: 'doc://open/a' })
    t.notMatch(open.text, no, 'it comes to the server')
    for (const method of ['x/reflect', 'prompts/get'])
      t.equal((await voice.ask(method, { name: 'x' })).json.error.data.reason, no, method)
    const seen = await listed(voice)
    // The policy that errs without arguments hides its tool: nothing is known that would permit it.
    t.same(seen, ['cwd', 'echo', 'lines', 'pid', 'sleep'], 'lists are of what may be called')
  }
  const [bob] = (await openVoices(sidecar, people.bob, ['modern HTTP'])) as [Voice]
  t.same(await outcomes(bob, ['echo', 'pid']), { echo: 'ok', pid: 'ERR_DENIED' }, 'level 1 is not enough')
  const [stranger] = (await openVoices(sidecar, people.stranger, ['Streamable HTTP'])) as [Voice]
  t.same(await listed(stranger), [])
})

t.test('what the server says of its tools counts from the first call on, and after a reload', async (t) => {
  const hinted = (name: string, hint: string): string =>
    `{"name":"${name}","inputSchema":{"type":"object"},"annotations":{"${hint}":true}}`
  const { command, record } = recital(t, 'legacy', {
    'tools/list': `{"tools":[${hinted('wipe', 'destructiveHint')},${hinted('look', 'readOnlyHint')}]}`,
    'tools/call': '{"content":[{"type":"text","text":"done"}]}',
  })
  const hints = (name: string): string => `${plain}
authorization:
  cedar:
    policies:
    - '@id("${name}") permit(principal, action, resource) when { resource has readOnlyHint && resource.readOnlyHint };'
    - permit(principal, action, resource) unless { resource has destructiveHint && resource.destructiveHint };
    - forbid(principal, action, resource) when { resource has destructiveHint && resource.destructiveHint };
`
  const sidecar = await startConfigured(t, hints('one'), { command })
  const voices = await openVoices(sidecar, people.alice, ['Streamable HTTP', 'modern HTTP'])
  const wanted = { wipe: 'ERR_DENIED', look: 'ok' }
  for (const voice of voices)
    t.same(await outcomes(voice, ['wipe', 'look']), wanted, `${voice.name}: before anybody has listed tools`)
  for (const voice of voices) t.same(await listed(voice), ['look'])
  for (const voice of voices) t.same(await outcomes(voice, ['wipe', 'look']), wanted, `${voice.name}: after`)
  await sidecar.reload(hints('two'))
  for (const voice of voices)
    t.same(await outcomes(voice, ['wipe', 'look']), wanted, `${voice.name}: after a reload`)
  t.notMatch(record(), /"name":"wipe"/, 'the server has never been asked to')
})

t.test('documents, rules of our own and Cedar together, and a reload that takes one away', async (t) => {
  const all = own.replace('authorization:', cedar)
  const sidecar = await startConfigured(t, all)
  const names = ['echo', 'pid', 'cwd', 'lines', 'params', 'sleep', 'env']
  const alice = await openVoices(sidecar, people.alice)
  const bob = await openVoices(sidecar, people.bob, ['WebSocket', 'modern HTTP'])
  const no = 'ERR_DENIED'
  const outside = { params: no, sleep: 'ERR_TOOL_UNKNOWN', env: 'ERR_TOOL_UNKNOWN' }
  for (const voice of alice)
    t.same(
      await outcomes(voice, names),
      { echo: 'ok', pid: no, cwd: 'ok', lines: 'ok', ...outside },
      voice.name,
    )
  for (const voice of bob)
    t.same(
      await outcomes(voice, names),
      { echo: 'ok', pid: no, cwd: no, lines: 'ok', ...outside },
      voice.name,
    )

  await sidecar.reload(own)
  for (const voice of bob) {
    t.equal((await outcomes(voice, ['pid']))['pid'], 'ok', `${voice.name}: without Cedar the rest permits`)
    t.same(await listed(voice), ['echo', 'lines', 'pid'])
  }
  await sidecar.reload(plain + cedar)
  for (const voice of alice)
    t.same(
      await outcomes(voice, ['pid', 'sleep', 'cwd']),
      { pid: 'ok', sleep: 'ok', cwd: 'ok' },
      'Cedar alone',
    )
  const bad = all.replace(policies, write('bad.cedar', 'permit(principal, action, resource'))
  await t.rejects(sidecar.reload(bad), { message: /bad\.cedar:1/ }, 'bad policies are not taken')
  for (const voice of alice)
    t.equal((await outcomes(voice, ['env']))['env'], no, 'and the old ones stay in force')
})

/** `mcp-sidecar validate` of this text: exit code and what it says. */
async function validated(name: string, yaml: string): Promise<{ code: number; output: string }> {
  write(name, yaml)
  let output = ''
  const sink = {
    write: (text: string): void => {
      output += text
    },
  }
  const code = await runCli({
    argv: ['validate', '--config', name, '--', ...scriptedCommand],
    env: {},
    cwd: place,
    stdin: Readable.from([]),
    stdout: sink,
    stderr: sink,
  })
  return { code, output }
}

t.test('validate tells of every mistake in policies by file and line', async (t) => {
  const inCedar = async (text: string) => {
    write('checked.cedar', text)
    return validated('cedar.yaml', 'authorization: { cedar: { policyFiles: [checked.cedar] } }\n')
  }
  const good = 'permit(principal, action, resource);\n'
  t.match(await inCedar(good), { code: 0 })
  const wrong: readonly (readonly [string, RegExp])[] = [
    [
      'forbid(principal, action, resource) when { resource.name == };',
      /^mcp-sidecar: checked\.cedar:2:61: /m,
    ],
    ['permit(principal in Folder::"x", action, resource);', /checked\.cedar:2:21: .*Folder/],
    ['permit(principal, action == Action::"cal_tool", resource);', /checked\.cedar:2:\d+: .*cal_tool/],
    ['forbid(principal, action, resource) when { resource.nam == "x" };', /checked\.cedar:2:44: .*nam/],
    ['forbid(principal, action, resource) when { context.argn > 1 };', /checked\.cedar:2:\d+: .*argn/],
  ]
  for (const [text, place] of wrong) {
    const { code, output } = await inCedar(`${good}${text}\n`)
    t.not(code, 0, text)
    t.match(output, place)
    t.notMatch(output, /\n\s+at |WASM|panicked/)
  }
  const rules = (rule: string) => `authorization:
  rules:
  - { principals: ['*'], tools: [echo] }
  - ${rule}
`
  for (const [rule, column, about] of [
    ['{ principals: [robots], tools: [echo] }', 20, /robots/],
    ["{ principals: ['user:a*'], tools: [echo] }", 20, /wildcard/],
    ["{ principals: ['*'], permissions: [{ tools: [echo], actions: [read] }] }", 67, /earlier draft/],
    [
      "{ principals: ['*'], tools: [echo], conditions: [{ type: IPAddress, value: 300.1.1.1 }] }",
      54,
      /300\.1\.1\.1/,
    ],
    ["{ principals: ['*'], tools: [echo], conditions: [{ type: TimeOfDay, value: '9-5' }] }", 54, /9-5/],
    [
      "{ principals: ['*'], tools: [echo], conditions: [{ type: RequestHeader, key: A, operator: Matches, value: '(' }] }",
      54,
      /RE2/,
    ],
  ] as const) {
    const { code, output } = await validated('rules.yaml', rules(rule))
    t.equal(code, 2, rule)
    t.match(output, new RegExp(`^mcp-sidecar: rules\\.yaml:4:${column}:? `, 'm'))
    t.match(output, about)
  }
})

t.test('a service account without a namespace is that of the namespace default, as documented', async (t) => {
  const rule = "{ principals: ['serviceaccount:ci'], tools: [echo] }"
  t.match(await validated('account.yaml', `authorization: { rules: [${rule}] }\n`), { code: 0 })
  const sidecar = await startConfigured(t, `${plain}authorization: { rules: [${rule}] }\n`)
  const of = async (namespace: string): Promise<string> => {
    const [voice] = (await openVoices(sidecar, who.account(namespace, 'ci'), ['modern HTTP'])) as [Voice]
    return (await outcomes(voice, ['echo']))['echo'] as string
  }
  t.same([await of('default'), await of('team-a')], ['ok', 'ERR_DENIED'])
})
