/**
 * A stdio MCP server without an SDK, light enough that what is measured is the bridge before it. `echo` returns its
 * text, `blob` returns `bytes` of text. Lines are joined once, at their newline, so that a 64 MiB line costs linear time.
 * With the argument `modern` it speaks 2026-07-28, else the revisions before it.
 */
import { payload } from './payload.mjs'

const inputSchema = (name, type) => ({
  type: 'object',
  properties: { [name]: { type } },
  required: [name],
})
const tools = [
  { name: 'echo', description: 'Returns its text', inputSchema: inputSchema('text', 'string') },
  { name: 'blob', description: 'Returns bytes of text', inputSchema: inputSchema('bytes', 'integer') },
]

const modern = process.argv[2] === 'modern'
/** What the results of an era have in common. */
const complete = modern ? { resultType: 'complete' } : {}
const cacheable = modern ? { ...complete, ttlMs: 0, cacheScope: 'private' } : {}

// Answers of one read leave in one write.
let answers = ''

function flush() {
  if (answers) process.stdout.write(answers)
  answers = ''
}

function reply(id, answer) {
  answers += `${JSON.stringify({ jsonrpc: '2.0', id, ...answer })}\n`
}

function sendBlob(id, bytes) {
  flush()
  process.stdout.cork()
  process.stdout.write(
    `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":{${modern ? '"resultType":"complete",' : ''}"content":[{"type":"text","text":`,
  )
  process.stdout.write(payload(bytes).encoded)
  process.stdout.write('}]}}\n')
  process.stdout.uncork()
}

function call(id, { name, arguments: args }) {
  if (name === 'echo') reply(id, { result: { ...complete, content: [{ type: 'text', text: args.text }] } })
  else if (name === 'blob') sendBlob(id, args.bytes)
  else reply(id, { error: { code: -32602, message: `Unknown tool: ${name}` } })
}

function receive(line) {
  const { id, method, params } = JSON.parse(line.toString())
  if (id === undefined || method === undefined) return
  if (method === 'tools/call') return call(id, params)
  if (method === 'ping') return reply(id, { result: {} })
  if (method === 'tools/list') return reply(id, { result: { ...cacheable, tools } })
  if (modern && method === 'server/discover') {
    return reply(id, {
      result: { ...cacheable, supportedVersions: ['2026-07-28'], capabilities: { tools: {} } },
    })
  }
  if (!modern && method === 'initialize') {
    const { protocolVersion } = params
    const serverInfo = { name: 'bench', version: '1.0.0' }
    return reply(id, { result: { protocolVersion, capabilities: { tools: {} }, serverInfo } })
  }
  reply(id, { error: { code: -32601, message: `Method not found: ${method}` } })
}

let parts = []
process.stdin.on('data', (chunk) => {
  let start = 0
  for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
    parts.push(chunk.subarray(start, end))
    receive(parts.length === 1 ? parts[0] : Buffer.concat(parts))
    parts = []
    start = end + 1
  }
  if (start < chunk.length) parts.push(chunk.subarray(start))
  flush()
})
