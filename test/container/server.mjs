#!/usr/bin/env node
/** A stdio MCP server without dependencies; its only tool says where and as whom it runs. */
import { homedir, userInfo } from 'node:os'
import { createInterface } from 'node:readline'

const results = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: 'container-fixture', version: '1.0.0' },
  }),
  ping: () => ({}),
  'tools/list': () => ({ tools: [{ name: 'where', inputSchema: { type: 'object' } }] }),
  'tools/call': () => ({ content: [{ type: 'text', text: JSON.stringify(place()) }] }),
}

const place = () => ({ home: homedir(), directory: process.cwd(), user: userInfo().username })

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line)
  if (id === undefined) continue
  const answer = results[method]
    ? { result: results[method](params) }
    : { error: { code: -32601, message: `no method ${method}` } }
  console.log(JSON.stringify({ jsonrpc: '2.0', id, ...answer }))
}
