/** What the operator says of the server's era, and servers that behave badly when they are asked for it. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { connect, nameOf, type Route } from '../support/clients.ts'
import { conformanceServer } from '../support/conformance.ts'
import { type LogLine, startTestSidecar } from '../support/sidecar.ts'
import { send } from '../support/wire.ts'

const clients: readonly Route[] = [
  { sdk: 'v2', over: 'Streamable HTTP', pinned: true },
  { sdk: 'v2', over: 'WebSocket', pinned: true },
  { sdk: 'v2', over: 'Streamable HTTP', auto: true },
  { sdk: 'v2', over: 'Streamable HTTP' },
  { sdk: 'v1', over: 'Streamable HTTP' },
  { sdk: 'v1', over: 'HTTP+SSE' },
  { sdk: 'v1', over: 'WebSocket' },
]

/** The eras that the log says were found out. */
const foundOut = (logs: readonly LogLine[]): unknown[] =>
  logs.filter(({ text }) => /^the MCP server .* era$/.test(text)).map(({ fields }) => fields['era'])

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
    t.strictSame(foundOut(logs), serverEra === 'auto' ? [spoken] : [])
    const { body } = await send(`${sidecar.adminUrl}/metrics`, 'GET')
    t.match(body, /^mcp_sidecar_process_restarts_total 0$/m, 'the first process has served')
  })
}

interface ProbeCase {
  readonly name: string
  /** Shell code. */
  readonly start?: string
  readonly discover: string
  readonly initialize?: string
  readonly era: 'modern' | 'legacy'
}

const about = '"capabilities":{"tools":{}}'
const initialized = `result '{"protocolVersion":"2025-11-25",${about},"serverInfo":{"name":"shell","version":"1"}}'`
const hints = '"resultType":"complete","ttlMs":0,"cacheScope":"private"'
const discovered = `result '{${hints},"supportedVersions":["2026-07-28"],${about}}'`
const unknown = `error '{"code":-32601,"message":"Method not found"}'`
const laterOnly = '{"supported":["2099-01-01"],"requested":"2026-07-28"}'

const probed: readonly ProbeCase[] = [
  { name: 'ends when it is asked', discover: 'exit 3', era: 'legacy' },
  { name: 'does not answer', discover: ':', era: 'legacy' },
  { name: 'says nothing any more once it was asked', discover: 'while read -r x; do :; done', era: 'legacy' },
  { name: 'prints garbage', discover: "echo 'no { JSON'", era: 'legacy' },
  {
    name: 'prints garbage when it starts',
    start: `echo 'Welcome!'; echo '{"a":'`,
    discover: unknown,
    era: 'legacy',
  },
  { name: 'answers with an error of its own', discover: `error '{"code":-1,"message":"?"}'`, era: 'legacy' },
  { name: 'answers with a result of another kind', discover: `result '{"ok":true}'`, era: 'legacy' },
  {
    name: 'knows only later versions',
    discover: `error '{"code":-32022,"message":"?","data":${laterOnly}}'`,
    era: 'legacy',
  },
  {
    name: 'prints garbage and then answers',
    discover: `echo 'no { JSON'; ${discovered}`,
    initialize: 'exit 1',
    era: 'modern',
  },
]

/** A server made of shell code, which starts at once. It appends the lines that it reads to a file. */
function shellServer(file: string, { start = ':', discover, initialize = initialized, era }: ProbeCase) {
  const list = `"tools":[{"name":"anything","inputSchema":{"type":"object"}}]`
  const content = '"content":[{"type":"text","text":"here"}]'
  const [complete, cacheable] = era === 'modern' ? [',"resultType":"complete"', `,${hints}`] : ['', '']
  const code = `
    result() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\\n' "$id" "$1"; }
    error() { printf '{"jsonrpc":"2.0","id":%s,"error":%s}\\n' "$id" "$1"; }
    ${start}
    while read -r line; do
      printf '%s\\n' "$line" >>"$0"
      id=\${line#*'"id":'}
      id=\${id%%[,\\}]*}
      case $line in
        *'"server/discover"'*) ${discover} ;;
        *'"initialize"'*) ${initialize} ;;
        *'"ping"'*) result '{}' ;;
        *'"tools/list"'*) result '{${list}${cacheable}}' ;;
        *'"tools/call"'*) result '{${content}${complete}}' ;;
      esac
    done`
  return ['/bin/sh', '-c', code, file]
}

/** Fails before an SDK does: a minute is too long for a client to be told that it can go on. */
async function soon<T>(promise: Promise<T>, name: string, ms = 40_000): Promise<T> {
  promise.catch(() => {})
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not served within ${ms} ms: ${name}`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

test('servers that behave badly when they are asked for their era', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'eras-'))
  t.teardown(() => rm(dir, { recursive: true, force: true }))
  t.jobs = probed.length
  for (const [at, probe] of probed.entries()) {
    t.test(`one that ${probe.name}`, async (t) => {
      const file = join(dir, String(at))
      const command = shellServer(file, probe)
      const { base, logs } = await startTestSidecar(t, {
        command,
        flags: { webSocket: true },
        config: { server: { warmSpares: 0 } },
      })
      for (const route of clients) {
        const peer = await soon(connect(route, { command, base }, { roots: false }), nameOf(route))
        t.match(await peer.call('anything'), { content: [{ text: 'here' }] }, nameOf(route))
        await peer.close()
      }
      t.strictSame(foundOut(logs), [probe.era])
      // What modern clients ask goes to a modern server.
      if (probe.era === 'modern') return
      const lines = (await readFile(file, 'utf8')).split('\n')
      t.equal(lines.filter((line) => line.includes('"server/discover"')).length, 1, 'and is asked but once')
    })
  }
})
