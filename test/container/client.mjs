/**
 * One MCP session over Streamable HTTP with nothing but node, run inside the container.
 * Its arguments are a tool's name, the arguments of the call as JSON and, optionally, the bearer token.
 * Prints what it saw as one JSON object.
 */
const [tool, toolArguments, token] = process.argv.slice(2)
const endpoint = 'http://127.0.0.1:8080/mcp'

const headers = {
  'content-type': 'application/json',
  accept: 'application/json, text/event-stream',
  ...(token && { authorization: `Bearer ${token}` }),
}

async function post(message) {
  const response = await fetch(endpoint, {
    method: 'POST',
    headers,
    body: JSON.stringify({ jsonrpc: '2.0', ...message }),
    signal: AbortSignal.timeout(20_000),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${message.method}: HTTP ${response.status} ${text}`)
  return { response, answer: answerIn(text, message.id) }
}

/** The body is one message, or a stream of events of which one carries the answer. */
function answerIn(text, id) {
  const messages = text.startsWith('{')
    ? [text]
    : [...text.matchAll(/^data: ?(.+)$/gm)].map((match) => match[1])
  return messages.map((message) => JSON.parse(message)).find((message) => message.id === id)
}

const unauthorized = await fetch(endpoint, {
  method: 'POST',
  headers: { ...headers, authorization: 'Bearer wrong' },
  body: '{}',
})
await unauthorized.arrayBuffer()

const opened = await post({
  id: 1,
  method: 'initialize',
  params: {
    protocolVersion: '2025-11-25',
    capabilities: {},
    clientInfo: { name: 'container-test', version: '1.0.0' },
  },
})
headers['mcp-session-id'] = opened.response.headers.get('mcp-session-id')
headers['mcp-protocol-version'] = opened.answer.result.protocolVersion

const initialized = await post({ method: 'notifications/initialized' })
const listed = await post({ id: 2, method: 'tools/list' })
const called = await post({
  id: 3,
  method: 'tools/call',
  params: { name: tool, arguments: JSON.parse(toolArguments) },
})
const closed = await fetch(endpoint, { method: 'DELETE', headers })
const after = await fetch(endpoint, {
  method: 'POST',
  headers,
  body: JSON.stringify({ jsonrpc: '2.0', id: 4, method: 'ping' }),
})

console.log(
  JSON.stringify({
    wrongToken: unauthorized.status,
    server: opened.answer.result.serverInfo.name,
    initialized: initialized.response.status,
    tools: listed.answer.result.tools.map(({ name }) => name),
    result: called.answer.result,
    closed: closed.status,
    afterwards: after.status,
  }),
)
