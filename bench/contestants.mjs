import { spawn } from 'node:child_process'
import { generateKeyPairSync, sign } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Client, connections } from './client.mjs'
import { descendants } from './proc.mjs'

const START_LIMIT_MS = 20_000
const TOKEN = 'bench-token-0123456789abcdef'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const node = process.execPath
const server = here('stdio-server.mjs')

function sidecar(topology, ...serverArgs) {
  return (port, folder) => {
    const tokens = join(folder, 'tokens')
    writeFileSync(tokens, `bench:${TOKEN}\n`, { mode: 0o600 })
    const listen = ['--host', '127.0.0.1', '--port', port, '--admin-port', '0']
    const options = ['--bearer-token-file', tokens, '--topology', topology]
    return [here('../dist/bin/mcp-sidecar.js'), ...listen, ...options, '--', node, server, ...serverArgs]
  }
}

/** JWT, three Cedar policies, a rate limit and the audit log, in front of the same server in the same topology. */
function secured(topology) {
  return (port, folder) => {
    // A folder for each: one that watches its files would take the other's for its own.
    const own = mkdtempSync(join(folder, 'secured-'))
    const write = (name, text) => writeFileSync(join(own, name), text, { mode: 0o600 })
    write(
      'jwks.json',
      JSON.stringify({ keys: [{ ...jwtKeys.publicKey.export({ format: 'jwk' }), kid: 'bench' }] }),
    )
    write('policies.cedar', POLICIES)
    write('secured.yaml', securedConfig(join(own, 'audit.log')))
    const listen = ['--host', '127.0.0.1', '--port', port, '--admin-port', '0', '--topology', topology]
    return [
      here('../dist/bin/mcp-sidecar.js'),
      ...listen,
      '--config',
      join(own, 'secured.yaml'),
      '--',
      node,
      server,
    ]
  }
}

const POLICIES = `@id("developers-echo")
permit(principal in THVGroup::"dev", action == Action::"call_tool", resource == Tool::"echo");
@id("operators")
permit(principal, action, resource) when { principal has claim_role && principal.claim_role == "operator" };
@id("no-secrets")
forbid(principal, action == Action::"call_tool", resource) when { context has arg_text && context.arg_text like "*secret*" };
`

const ISSUER = 'https://issuer.example'
const AUDIENCE = 'https://mcp.example/mcp'

const securedConfig = (auditFile) => `auth:
  jwt: { issuer: '${ISSUER}', audiences: ['${AUDIENCE}'], jwksFile: jwks.json }
authorization:
  cedar: { policyFiles: [policies.cedar] }
rateLimits:
  - { per: principal, requests: 1000000000, window: 1h }
audit: { destination: '${auditFile}' }
`

const jwtKeys = generateKeyPairSync('ec', { namedCurve: 'P-256' })

function jwt() {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const now = Math.floor(Date.now() / 1000)
  const claims = { iss: ISSUER, aud: AUDIENCE, sub: 'bench', groups: ['dev'], iat: now, exp: now + 86_400 }
  const text = `${part({ alg: 'ES256', kid: 'bench', typ: 'at+jwt' })}.${part(claims)}`
  const signature = sign('sha256', Buffer.from(text), { key: jwtKeys.privateKey, dsaEncoding: 'ieee-p1363' })
  return `${text}.${signature.toString('base64url')}`
}

function supergateway(...mode) {
  return (port) => {
    const program = here('node_modules/supergateway/dist/index.js')
    const options = ['--outputTransport', 'streamableHttp', ...mode, '--port', port]
    return ['--import', here('loopback.mjs'), program, '--stdio', `"${node}" "${server}"`, ...options]
  }
}

function mcpProxy(port) {
  const program = here('node_modules/mcp-proxy/dist/bin/mcp-proxy.mjs')
  return [program, '--host', '127.0.0.1', '--port', port, '--server', 'stream', '--', node, server]
}

const onlyEcho = 'its policies permit the tool echo alone'
const noSessions = 'it keeps no sessions'
const noProcessEach = 'one server process per session'
const fixedAnswer = 'its answer is fixed'
const bodyLimit = 'its request body limit is 100 kB'

/**
 * `args(port, folder)` are node's arguments; all listen on 127.0.0.1 and serve /mcp. `cannot` gives the reason by
 * figure. The sidecar is there twice for clients with sessions, twice more with everything that costs on, and twice for
 * modern clients, which have none. Options left out are at their defaults, logging included; each logs to a file.
 */
export const contestants = [
  {
    name: 'sidecar-shared',
    args: sidecar('shared'),
    headers: { authorization: `Bearer ${TOKEN}` },
    cannot: {},
  },
  {
    name: 'sidecar-per-session',
    args: sidecar('per-session'),
    headers: { authorization: `Bearer ${TOKEN}` },
    cannot: { sessions: noProcessEach },
  },
  {
    name: 'secured-shared',
    args: secured('shared'),
    headers: { authorization: `Bearer ${jwt()}` },
    cannot: { payload: onlyEcho },
  },
  {
    name: 'secured-per-session',
    args: secured('per-session'),
    headers: { authorization: `Bearer ${jwt()}` },
    cannot: { payload: onlyEcho, sessions: noProcessEach },
  },
  {
    name: 'modern-to-legacy',
    args: sidecar('auto'),
    headers: { authorization: `Bearer ${TOKEN}` },
    modern: true,
    cannot: { sessions: 'modern clients have none' },
  },
  {
    name: 'modern-to-modern',
    args: sidecar('auto', 'modern'),
    headers: { authorization: `Bearer ${TOKEN}` },
    modern: true,
    cannot: { sessions: 'modern clients have none' },
  },
  {
    name: 'floor',
    args: (port) => [here('floor.mjs'), port, node, server],
    cannot: { sessions: noSessions },
  },
  {
    name: 'echo',
    args: (port) => [here('echo.mjs'), port],
    fixed: true,
    cannot: { payload: fixedAnswer, sessions: noSessions },
  },
  {
    name: 'supergateway-stateful',
    peer: true,
    args: supergateway('--stateful'),
    cannot: { upload: bodyLimit, sessions: noProcessEach },
  },
  {
    name: 'supergateway-stateless',
    peer: true,
    args: supergateway(),
    cannot: { upload: bodyLimit, sessions: noSessions },
  },
  { name: 'mcp-proxy', peer: true, args: mcpProxy, cannot: {} },
]

async function freePort() {
  const probe = createServer()
  await new Promise((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address()
  await new Promise((resolve) => probe.close(resolve))
  return String(port)
}

const running = new Set()

/**
 * Starts a contestant and waits for its first checked tools/call. `startMs` is the time from before the spawn to that
 * answer, the client's handshake included. A `collectable` one collects its garbage on SIGUSR2
 * and writes what is left to `memoryFile`.
 */
export async function start(contestant, folder, { collectable = false } = {}) {
  const port = await freePort()
  const preload = collectable ? ['--expose-gc', '--import', here('collect.mjs')] : []
  const args = [...preload, ...contestant.args(port, folder)]
  const memoryFile = join(folder, `${contestant.name}.memory`)
  const env = collectable ? { ...process.env, BENCH_MEMORY_FILE: memoryFile } : process.env
  const logFile = join(folder, `${contestant.name}.log`)
  const log = openSync(logFile, 'w')
  const startedAt = performance.now()
  // An open pipe as input: supergateway ends when its input does.
  const child = spawn(node, args, { stdio: ['pipe', log, log], env })
  closeSync(log)
  const target = {
    url: `http://127.0.0.1:${port}/mcp`,
    headers: contestant.headers,
    fixed: contestant.fixed,
    modern: contestant.modern,
  }
  const self = { contestant, child, pid: child.pid, target, memoryFile, stop: () => stop(self) }
  running.add(self)
  try {
    await firstCall(target, child)
  } catch (error) {
    await self.stop()
    const lastLine = readFileSync(logFile, 'utf8').trim().split('\n').at(-1)
    throw new Error(`${contestant.name} did not start: ${error.message}; its last log line: ${lastLine}`)
  }
  self.startMs = performance.now() - startedAt
  return self
}

async function firstCall(target, child) {
  const agent = connections(1)
  const deadline = performance.now() + START_LIMIT_MS
  try {
    for (;;) {
      try {
        const client = new Client(target)
        await client.open(agent)
        await client.echo(agent)
        return
      } catch (error) {
        const notYet = ['ECONNREFUSED', 'ECONNRESET'].includes(error.code) || error.status >= 502
        if (!notYet || child.exitCode !== null || performance.now() > deadline) throw error
      }
      await sleep(2)
    }
  } finally {
    agent.destroy()
  }
}

function kill(pid) {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended already.
  }
}

// Without a farewell: some peers take more than a second for theirs. A server process ends with its input, too.
async function stop(self) {
  if (!running.delete(self)) return
  const { child } = self
  if (child.exitCode !== null || child.signalCode !== null) return
  const family = descendants(child.pid)
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await ended
  for (const pid of family) kill(pid)
}

export async function stopAll() {
  await Promise.all([...running].map((self) => self.stop()))
}
