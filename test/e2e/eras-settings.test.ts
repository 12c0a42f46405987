/** What the operator says of the server's era, and servers that behave badly when they are asked for it. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Test, test } from 'tap'
import { connect, nameOf, type Route } from '../support/clients.ts'
import { conformanceServer } from '../support/conformance.ts'
import { startTestSidecar } from '../support/sidecar.ts'

const clients: readonly Route[] = [
  { sdk: 'v2', over: 'Streamable HTTP', pinned: true },
  { sdk: 'v2', over: 'WebSocket', pinned: true },
  { sdk: 'v2', over: 'Streamable HTTP', auto: true },
  { sdk: 'v2', over: 'Streamable HTTP' },
  { sdk: 'v1', over: 'Streamable HTTP' },
  { sdk: 'v1', over: 'HTTP+SSE' },
  { sdk: 'v1', over: 'WebSocket' },
]

type Settings = 'auto' | 'modern' | 'legacy'

/** Each combination that can work, and the era in which the sidecar then speaks to the server. */
const settings: readonly (readonly [Settings, 'legacy' | 'modern' | 'dual', 'modern' | 'legacy'])[] = [
  ['auto', 'legacy', 'legacy'],
  ['auto', 'modern', 'modern'],
  ['auto', 'dual', 'modern'],
  ['legacy', 'legacy', 'legacy'],
  ['legacy', 'dual', 'legacy'],
  ['modern', 'modern', 'modern'],
  ['modern', 'dual', 'modern'],
]

for (const [serverEra, server, spoken] of settings) {
  test(`--server-era ${serverEra} and a ${server} server: it is spoken to in the ${spoken} era`, async (t) => {
    const command = conformanceServer(server)
    const { base, logs, sidecar } = await startTestSidecar(t, {
      command,
      flags: { webSocket: true, serverEra },
      config: { server: { warmSpares: 0 } },
    })
    for (const route of clients) {
      const peer = await connect(route, { command, base })
      t.teardown(() => peer.close())
      peer.user.answers.push({ action: 'accept', content: { name: 'Ada' } })
      const [greeting, answer] = [
        await peer.call('test_input_required_result_elicitation'),
        await peer.call('test_sampling', { prompt: 'x' }),
      ]
      t.match(greeting, { content: [{ text: 'Hello, Ada!' }] }, nameOf(route))
      t.match(answer, { content: [{ text: 'LLM response: You said: x 🙂' }] }, nameOf(route))
      if (route.sdk === 'v2') t.equal(peer.era, route.pinned || route.auto ? 'modern' : 'legacy')
    }
    t.ok(sidecar.ready)
    const eras = logs.flatMap(({ fields }) => ('era' in fields ? [fields['era']] : []))
    t.strictSame(eras, serverEra === 'auto' ? [spoken] : [], 'only what was found out is logged')
  })
}

const script = fileURLToPath(new URL('../fixtures/probe-server.sh', import.meta.url))
const info = '"serverInfo":{"name":"shell","version":"1"}'
const initialized = `result '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},${info}}'`
const capable =
  '{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}'

/** Answers tools of any era, beside what the fixture does. */
const tools = (result: string): string =>
  `case $line in *'"tools/call"'*) result '{"content":[{"type":"text","text":"here"}]${result}}' ;; esac`

interface ProbeCase {
  readonly name: string
  readonly start?: string
  readonly discover: string
  readonly initialize?: string
  readonly era: 'modern' | 'legacy'
}

const probed: readonly ProbeCase[] = [
  { name: 'ends when it is asked', discover: 'exit 3', era: 'legacy' },
  { name: 'is silent when it is asked', discover: ':', era: 'legacy' },
  { name: 'never answers anything before initialize', discover: 'silent=1', era: 'legacy' },
  { name: 'prints garbage when it is asked', discover: "echo 'no { JSON'", era: 'legacy' },
  {
    name: 'prints garbage when it starts',
    start: "echo 'Welcome!'; echo '{\"a\":'",
    discover: `error '{"code":-32601,"message":"Method not found"}'`,
    era: 'legacy',
  },
  { name: 'answers with an error of its own', discover: `error '{"code":-1,"message":"?"}'`, era: 'legacy' },
  { name: 'answers with a result of another kind', discover: `result '{"ok":true}'`, era: 'legacy' },
  {
    name: 'knows only later versions',
    discover: `error '{"code":-32022,"message":"?","data":{"supported":["2099-01-01"],"requested":"x"}}'`,
    era: 'legacy',
  },
  {
    name: 'prints garbage and then answers',
    discover: `echo 'no { JSON'; result '${capable}'`,
    initialize: 'exit 1',
    era: 'modern',
  },
]

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'eras-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

test('servers that behave badly when they are asked for their era', async (t) => {
  t.jobs = 3
  for (const { name, start = '', discover, initialize = initialized, era } of probed) {
    t.test(`one that ${name}`, async (t) => {
      const pids = join(await folder(t), 'pids')
      const call = tools(era === 'modern' ? ',"resultType":"complete"' : '')
      // The fixture looks for two methods only; the third is found by what stands before each look.
      const wrapped = `${start}
while read -r line; do
  printf '%s\\n' "$line" >>"$pids.in"
  id=\${line#*'"id":'}
  id=\${id%%[,\\}]*}
  case $line in
    *'"server/discover"'*) ${discover} ;;
    *'"initialize"'*) ${initialize} ;;
    *) ${call} ;;
  esac
done`
      const command = ['/bin/sh', script, pids, wrapped, ':', ':']
      const { base, logs } = await startTestSidecar(t, {
        command,
        flags: { webSocket: true },
        config: { server: { warmSpares: 0 } },
      })
      for (const route of clients.filter(({ over }) => over !== 'HTTP+SSE')) {
        const peer = await connect(route, { command, base }, { roots: false })
        t.match(await peer.call('anything'), { content: [{ text: 'here' }] }, nameOf(route))
        await peer.close()
      }
      const eras = logs.flatMap(({ fields }) => ('era' in fields ? [fields['era']] : []))
      t.strictSame(eras, [era])
      const asked = (await readFile(`${pids}.in`, 'utf8')).split('"server/discover"').length - 1
      t.equal(asked, 1, 'and is asked but once')
    })
  }
})
