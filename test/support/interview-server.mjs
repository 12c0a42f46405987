// A stdio MCP server of the handshake era, without an SDK, whose tools ask their client many things in several rounds.
// Everything it says about a call names the owner that the call's arguments name, so that what reaches another shows.
// With --pid=FILE it appends its pid to FILE.
//
// Tools; the answer is one text block of JSON:
//   interview  owner, call, rounds: [[kind]], ms, stubborn. In each round, after ms, it reports progress if there is a
//              token, logs, and asks all questions of the round at once (sampling, elicitation, roots). At last:
//              {owner, call, pid, replies: [[answer]]}. Cancelled, it stops and says so on stderr; a stubborn one asks
//              once more.
//   again      asks an elicitation and, with ms, takes the question back after that time, then ends
//   hurry      asks an elicitation, ends after ms whatever the client does, and says which answer came
//   pid, running (the calls of interviews that are not over), received (notifications and requests), lines (raw)
//   notify     method, params, ms: a notification, after the answer with ms
//   annotate   header: the argument `value` of the tool `mirror` is repeated in this header from now on; announced
//   mirror     its arguments
//   crash
// Prompt `interview` (owner, call) and resource ask://OWNER/CALL ask one elicitation. x/ask asks one, too.
import { appendFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const [, pidFile] = /^--pid=(.+)$/.exec(process.argv[2] ?? '') ?? []
if (pidFile !== undefined) appendFileSync(pidFile, `${process.pid}\n`)

const write = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const text = (value) => ({ content: [{ type: 'text', text: JSON.stringify(value) }] })

const asked = new Map()
const running = new Map()
const received = []
const lines = []
const methods = {
  sampling: ['sampling/createMessage', { messages: [], maxTokens: 1 }],
  elicitation: [
    'elicitation/create',
    { message: 'which?', requestedSchema: { type: 'object', properties: { by: { type: 'string' } } } },
  ],
  roots: ['roots/list', {}],
}
let lastId = 0
let header

function ask(kind, metadata, onId = () => {}) {
  const id = ++lastId
  const [method, params] = methods[kind]
  onId(id)
  write({ id, method, params: { ...params, metadata } })
  return new Promise((resolve) => asked.set(id, resolve))
}

/** What the client said, without the id. */
const bare = ({ result, error }) => (error === undefined ? { result } : { error })

const tools = {
  async interview({ owner, call, rounds, ms = 0, stubborn = false }, { id, token }) {
    const self = { call, stopped: false }
    running.set(id, self)
    const replies = []
    for (const [round, kinds] of rounds.entries()) {
      if (ms > 0) await sleep(ms)
      if (self.stopped) break
      const metadata = { owner, call, round }
      if (token !== undefined) {
        const params = { progressToken: token, progress: round + 1, message: `${owner} ${call}` }
        write({ method: 'notifications/progress', params })
      }
      write({ method: 'notifications/message', params: { level: 'info', data: metadata } })
      const answers = await Promise.all(kinds.map((kind) => ask(kind, metadata)))
      if (self.stopped) break
      replies.push(answers.map(bare))
    }
    running.delete(id)
    if (!self.stopped) return text({ owner, call, pid: process.pid, replies })
    if (stubborn) void ask('elicitation', { owner, call, round: 'late' })
  },
  async again({ owner, call, ms }) {
    let own
    const answer = ask('elicitation', { owner, call }, (id) => {
      own = id
    })
    if (ms === undefined) return text(bare(await answer))
    await sleep(ms)
    write({ method: 'notifications/cancelled', params: { requestId: own, reason: 'never mind' } })
    return text('never mind')
  },
  async hurry({ owner, call, ms }) {
    const answer = await Promise.race([ask('elicitation', { owner, call }), sleep(ms)])
    process.stderr.write('did not wait\n')
    return text(answer === undefined ? 'nothing' : bare(answer))
  },
  pid: () => text(process.pid),
  running: () => text([...running.values()].map(({ call }) => call)),
  received: () => text(received),
  lines: () => text(lines),
  notify({ method, params, ms }) {
    if (ms === undefined) write({ method, params })
    else setTimeout(() => write({ method, params }), ms)
    return text('notified')
  },
  annotate(args) {
    header = args.header
    write({ method: 'notifications/tools/list_changed' })
    return text('annotated')
  },
  mirror: (args) => text(args),
  crash: () => process.exit(3),
}

async function elicited(owner, call) {
  return JSON.stringify(bare(await ask('elicitation', { owner, call })))
}

const requests = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: {
      tools: { listChanged: true },
      prompts: {},
      resources: { subscribe: true, listChanged: true },
      logging: {},
    },
    serverInfo: { name: 'interview-server', version: '1.0.0' },
  }),
  ping: () => ({}),
  'logging/setLevel': () => ({}),
  'resources/subscribe': () => ({}),
  'resources/unsubscribe': () => ({}),
  'tools/list': () => ({
    tools: Object.keys(tools).map((name) => {
      const value = { type: 'string', ...(header === undefined ? {} : { 'x-mcp-header': header }) }
      return {
        name,
        inputSchema: { type: 'object', ...(name === 'mirror' ? { properties: { value } } : {}) },
      }
    }),
  }),
  'prompts/list': () => ({ prompts: [{ name: 'interview' }] }),
  'resources/list': () => ({ resources: [] }),
  'prompts/get': async ({ arguments: { owner, call } }) => ({
    messages: [{ role: 'user', content: { type: 'text', text: await elicited(owner, call) } }],
  }),
  'resources/read': async ({ uri }) => {
    const [, owner, call] = /^ask:\/\/([^/]+)\/(.+)$/.exec(uri)
    return { contents: [{ uri, text: await elicited(owner, call) }] }
  },
  'x/ask': async ({ owner, call }) => ({ reply: bare(await ask('elicitation', { owner, call })) }),
  'tools/call': ({ name, arguments: args = {}, _meta }, { id }) =>
    tools[name]?.(args, { id, token: _meta?.progressToken }),
}

async function take({ id, method, params = {}, ...response }) {
  if (method === undefined) {
    asked.get(id)?.(response)
    asked.delete(id)
    return
  }
  received.push({ method, params })
  if (method === 'notifications/cancelled') {
    const call = running.get(params.requestId)
    if (call === undefined) return
    call.stopped = true
    process.stderr.write(`stopped ${call.call}\n`)
  }
  if (id === undefined) return
  const result = await requests[method]?.(params, { id })
  if (result !== undefined) write({ id, result })
  else if (!Object.hasOwn(requests, method))
    write({ id, error: { code: -32601, message: 'Method not found' } })
  else if (method === 'tools/call' && !Object.hasOwn(tools, params.name)) {
    write({ id, error: { code: -32602, message: `Unknown tool: ${params.name}` } })
  }
}

const input = createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })
input.on('line', (line) => {
  if (lines.length < 1000) lines.push(line)
  void take(JSON.parse(line))
})
input.on('close', () => process.exit(0))
