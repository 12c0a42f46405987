#!/usr/bin/env node
/** A stdio MCP server without dependencies: one tool says where and as whom it runs, one tries what it may do. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { homedir, userInfo } from 'node:os'
import { createInterface } from 'node:readline'

const results = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: 'container-fixture', version: '1.0.0' },
  }),
  ping: () => ({}),
  'tools/list': () => ({
    tools: Object.keys(tools).map((name) => ({ name, inputSchema: { type: 'object' } })),
  }),
  'tools/call': async ({ name, arguments: given }) => ({
    content: [{ type: 'text', text: JSON.stringify(await tools[name](given)) }],
  }),
}

const tools = { where: () => place(), attempt: ({ attempts }) => outcomes(attempts) }

const place = () => ({ home: homedir(), directory: process.cwd(), user: userInfo().username })

/** What becomes of attempts such as `read /etc/passwd`: `done`, or the code of the error. */
async function outcomes(attempts) {
  const results = {}
  for (const attempt of attempts) {
    const [verb, object] = attempt.split(' ')
    try {
      await verbs[verb](object)
      results[attempt] = 'done'
    } catch (error) {
      results[attempt] = error.code ?? String(error)
    }
  }
  return results
}

const verbs = {
  read: (path) => {
    if (path === '/data/link') symlinkSync('/etc/passwd', path)
    readFileSync(path)
  },
  write: (path) => writeFileSync(path, ''),
  list: (path) => readdirSync(path),
  run: (path) => {
    copyFileSync('/bin/true', path)
    execFileSync(path)
  },
  variable: (name) => {
    if (process.env[name] === undefined) throw Object.assign(new Error('it is not set'), { code: 'ENOENT' })
  },
  connect: (address) =>
    new Promise((resolve, reject) => {
      const [host, port] = address.split(':')
      connect({ host, port: Number(port), timeout: 5000 })
        .once('connect', resolve)
        .once('timeout', () => reject(new Error('no answer')))
        .once('error', reject)
    }),
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line)
  if (id === undefined) continue
  const answer = results[method]
    ? { result: await results[method](params) }
    : { error: { code: -32601, message: `no method ${method}` } }
  console.log(JSON.stringify({ jsonrpc: '2.0', id, ...answer }))
}
