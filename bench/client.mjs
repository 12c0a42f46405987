import { Agent, request as httpRequest } from 'node:http'

export const PROTOCOL_VERSION = '2025-11-25'
const MODERN_VERSION = '2026-07-28'

/** What travels with each request of a modern client. */
const ENVELOPE = {
  'io.modelcontextprotocol/protocolVersion': MODERN_VERSION,
  'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1.0.0' },
  'io.modelcontextprotocol/clientCapabilities': {},
}
export const ANSWER_TIMEOUT_MS = 60_000

/** What the contestant `echo` answers to everything; clients of it send this id and text only. */
export const FIXED_ANSWER = {
  jsonrpc: '2.0',
  id: 1,
  result: { content: [{ type: 'text', text: 'hello, 1 of them: "é" → €' }] },
}

/** Connections are those of one window: a server may have closed older ones meanwhile. */
export function connections(count) {
  return new Agent({ keepAlive: true, maxSockets: count, timeout: ANSWER_TIMEOUT_MS })
}

function post(options, body) {
  return new Promise((resolve, reject) => {
    const request = httpRequest(options, (response) => {
      const chunks = []
      response.on('data', (chunk) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const { statusCode: status, headers } = response
        resolve({ status, headers, body: chunks.length === 1 ? chunks[0] : Buffer.concat(chunks) })
      })
    })
    request.on('error', reject)
    request.on('timeout', () => request.destroy(new Error(`no answer in ${ANSWER_TIMEOUT_MS / 1000} s`)))
    request.end(body)
  })
}

function* messages(type, text) {
  if (!type.startsWith('text/event-stream')) return yield JSON.parse(text)
  for (const event of text.split(/\r?\n\r?\n/)) {
    const data = event
      .split(/\r?\n/)
      .filter((line) => line.startsWith('data:'))
      .map((line) => line.slice(5))
      .join('\n')
    if (data.trim()) yield JSON.parse(data)
  }
}

function refusal({ status, body }) {
  const start = body.subarray(0, 160).toString().replace(/\s+/g, ' ').trim()
  return Object.assign(new Error(`HTTP ${status}${start ? ` ${start}` : ''}`), { status })
}

function resultOf(answer, text, id) {
  if (answer.status !== 200) throw refusal(answer)
  for (const message of messages(answer.headers['content-type'] ?? '', text)) {
    if (message.id !== id) continue
    if (message.result === undefined) throw new Error(`error answer: ${JSON.stringify(message.error)}`)
    return message.result
  }
  throw new Error(`no answer to id ${id}: ${text.slice(0, 160)}`)
}

function checkText(result, text) {
  if (result.content?.[0]?.text !== text || result.isError)
    throw new Error('the answer has another payload than asked for')
}

/** Compares bytes and parses only what is around them: parsing megabytes here would hide what the bridge costs. */
function checkPayload(answer, id, { text, encoded }) {
  const at = answer.body.indexOf(encoded.subarray(0, 128))
  const end = at + encoded.length
  if (at !== -1 && answer.body.compare(encoded, 0, encoded.length, at, end) === 0) {
    const around = `${answer.body.subarray(0, at)}""${answer.body.subarray(end)}`
    checkText(resultOf(answer, around, id), '')
  } else {
    checkText(resultOf(answer, answer.body.toString(), id), text)
  }
}

/**
 * One MCP session over Streamable HTTP, or a modern client, which has none. Every answer's id and payload are checked;
 * what differs throws.
 */
export class Client {
  #lastId = 0
  #fixed
  #modern
  #options

  /** `fixed`: the target always sends `FIXED_ANSWER`. `modern`: speak 2026-07-28. */
  constructor({ url, headers = {}, fixed = false, modern = false }) {
    const { hostname, port, pathname } = new URL(url)
    this.#fixed = fixed
    this.#modern = modern
    this.#options = {
      host: hostname,
      port,
      path: pathname,
      method: 'POST',
      headers: {
        ...headers,
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
      },
    }
  }

  async open(agent) {
    const id = this.#nextId()
    if (this.#modern) {
      this.#options.headers['mcp-protocol-version'] = MODERN_VERSION
      const answer = await this.#post(agent, { jsonrpc: '2.0', id, method: 'server/discover', params: {} })
      resultOf(answer, answer.body.toString(), id)
      return
    }
    const clientInfo = { name: 'bench', version: '1.0.0' }
    const params = { protocolVersion: PROTOCOL_VERSION, capabilities: {}, clientInfo }
    const answer = await this.#post(agent, { jsonrpc: '2.0', id, method: 'initialize', params })
    resultOf(answer, answer.body.toString(), id)
    const session = answer.headers['mcp-session-id']
    if (session) this.#options.headers['mcp-session-id'] = session
    this.#options.headers['mcp-protocol-version'] = PROTOCOL_VERSION
    const done = await this.#post(agent, { jsonrpc: '2.0', method: 'notifications/initialized' })
    if (done.status >= 300) throw refusal(done)
  }

  async echo(agent) {
    const id = this.#nextId()
    const text = this.#fixed ? FIXED_ANSWER.result.content[0].text : `hello, ${id} of them: "é" → €`
    const params = { name: 'echo', arguments: { text } }
    const answer = await this.#post(agent, { jsonrpc: '2.0', id, method: 'tools/call', params })
    checkText(resultOf(answer, answer.body.toString(), id), text)
  }

  async echoPayload(agent, expected) {
    const id = this.#nextId()
    const meta = this.#modern ? `"_meta":${JSON.stringify(ENVELOPE)},` : ''
    const head = `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{${meta}"name":"echo","arguments":{"text":`
    const body = Buffer.concat([Buffer.from(head), expected.encoded, Buffer.from('}}}')])
    checkPayload(await post(this.#request(agent, 'tools/call', 'echo'), body), id, expected)
  }

  async blob(agent, bytes, expected) {
    const id = this.#nextId()
    const params = { name: 'blob', arguments: { bytes } }
    checkPayload(await this.#post(agent, { jsonrpc: '2.0', id, method: 'tools/call', params }), id, expected)
  }

  #nextId() {
    return this.#fixed ? FIXED_ANSWER.id : ++this.#lastId
  }

  #request(agent, method, name) {
    if (!this.#modern) return { ...this.#options, agent }
    const headers = { ...this.#options.headers, 'mcp-method': method }
    if (name !== undefined) headers['mcp-name'] = name
    return { ...this.#options, headers, agent }
  }

  #post(agent, message) {
    const { method, params } = message
    const sent = this.#modern ? { ...message, params: { _meta: ENVELOPE, ...params } } : message
    return post(this.#request(agent, method, params?.name), JSON.stringify(sent))
  }
}
