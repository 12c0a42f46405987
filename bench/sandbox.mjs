/** What the sandbox costs a server: its start, a message over stdio, a connection. Without the sidecar's own work. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const built = (path) => import(here(`../dist/src/${path}`))

/** How a server is started. */
export const ways = ['plain', 'none', 'allowlist']

export const sandboxFigures = {
  launch: { label: 'Start and end of a small program', unit: 'ms', digits: 2 },
  roundTrip: { label: 'A message over stdio and its answer', unit: 'µs', digits: 1 },
  connect: { label: 'A connect to a listener on loopback', unit: 'µs', digits: 0 },
  answer: { label: 'A connect, and a byte there and back', unit: 'µs', digits: 0 },
}

/** The differences are medians of the rounds', the ratio the median of the rounds' ratios. */
export const sandboxTargets = [
  { text: 'a start costs at most 5 ms more', key: 'launch', way: 'none', more: 5 },
  { text: 'a start with a broker costs at most 5 ms more', key: 'launch', way: 'allowlist', more: 5 },
  {
    text: 'a message costs nothing measurable: 0.97 of the speed or better',
    key: 'roundTrip',
    way: 'none',
    speed: 0.97,
  },
  {
    text: 'a message with a broker, too: 0.97 of the speed or better',
    key: 'roundTrip',
    way: 'allowlist',
    speed: 0.97,
  },
  { text: 'a connect costs at most 200 µs more', key: 'connect', way: 'allowlist', more: 200 },
]

/** Adds one value for each way and round to `results`. */
export async function measureSandbox({ settings, results, say }) {
  const { WayOut, buildConfinement } = await built('confinement.js')
  const { findLauncher } = await built('sandbox/launcher.js')
  const { profileWith, NO_NETWORK, NO_FILES } = await built('core/profile.js')
  const { systemClock } = await built('observe/clock.js')
  if (findLauncher() === undefined) {
    say('sandbox: there is no launcher; a C compiler was missing when the sidecar was built')
    return
  }
  // As a sidecar has it, but for what it writes of each connection.
  const context = {
    ...{ clock: systemClock, env: process.env, ownPorts: () => [] },
    log: { debug() {}, info() {}, warn() {}, error() {} },
    metrics: { egress() {}, egressBytes() {} },
    records: { event() {} },
  }
  const wayOut = new WayOut(context)
  // In a process of its own: what it does for a connection is not the proxy's work.
  const listener = spawn(process.execPath, [here('listener.mjs')], { stdio: ['pipe', 'pipe', 'inherit'] })
  const [port] = await once(createInterface({ input: listener.stdout }), 'line')
  const folder = here('.').replace(/\/$/, '')
  const filesystem = { ...NO_FILES, read: [{ path: folder, execute: true, optional: false }] }
  const network = { ...NO_NETWORK, mode: 'allowlist', cidrs: ['127.0.0.1/32'] }
  const sandbox = (permissions) => {
    const command = [process.execPath, here('stdio-server.mjs')]
    const server = {
      command,
      cwd: undefined,
      socket: undefined,
      envAllow: [],
      envSet: {},
      startTimeoutMs: 10_000,
    }
    // What belongs to a sidecar is taken out of the grants.
    const protectedPaths = ['/etc/mcp-sidecar/config.yaml']
    return buildConfinement(
      { permissions, protectedPaths, server, limits: { processes: 32 } },
      wayOut,
      context,
    )
  }
  const sandboxes = {
    none: await sandbox(profileWith('none', { filesystem })),
    allowlist: await sandbox(profileWith('allowlist', { filesystem, network })),
  }
  const start = (way, command) => {
    const env = { PATH: process.env.PATH ?? '' }
    const launch = way === 'plain' ? { command, env } : sandboxes[way].launch(command, env)
    const [file, ...args] = launch.command
    const stdio = ['pipe', 'pipe', 'inherit', ...(launch.policy === undefined ? [] : ['pipe', 'pipe'])]
    const child = spawn(file, args, { env: launch.env, stdio, detached: true })
    child.stdio[3]?.end(launch.policy)
    child.stdio[4]?.resume()
    child.once('exit', () => launch.ended?.())
    return child
  }
  try {
    await starts(start, settings, results)
    await messages(start, settings, results)
    await connections(start, settings, results, port)
  } finally {
    listener.stdin.end()
    await wayOut.close()
  }
}

const inTurn = (round) => ways.map((_, i) => ways[(i + round) % ways.length])

async function starts(start, { launchRounds }, results) {
  for (let round = 0; round < launchRounds; round++) {
    for (const way of inTurn(round)) {
      const from = performance.now()
      const child = start(way, ['/bin/true'])
      const code = await new Promise((resolve) => child.once('exit', resolve))
      if (code !== 0) throw new Error(`${way}: /bin/true exited with ${code}`)
      results.add('launch', way, performance.now() - from)
    }
  }
}

/** A server for each way, which answer in turn. */
async function servers(start, args, work) {
  const running = ways.map((way) => {
    const child = start(way, [process.execPath, ...args])
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const ask = async (text) => {
      child.stdin.write(`${text}\n`)
      const { value, done } = await lines.next()
      if (done) throw new Error(`${way}: the server ended`)
      return value
    }
    return { way, child, ask }
  })
  try {
    await work(running)
  } finally {
    for (const { child } of running) child.stdin.end()
    await Promise.all(
      running.map(({ child }) => child.exitCode ?? new Promise((resolve) => child.once('exit', resolve))),
    )
  }
}

const turned = (list, round) => list.map((_, i) => list[(i + round) % list.length])

/** Servers are started anew again and again: on which processors a pair of processes comes to lie decides more than all else. */
async function messages(start, { messageStarts, messageRounds, messages: count }, results) {
  const call =
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}'
  const once = async ({ way, ask }, add) => {
    const from = performance.now()
    for (let i = 0; i < count; i++)
      if (!(await ask(call)).includes('hello')) throw new Error('a wrong answer')
    if (add) results.add('roundTrip', way, ((performance.now() - from) * 1000) / count)
  }
  for (let turn = 0; turn < messageStarts; turn++) {
    await servers(start, [here('stdio-server.mjs')], async (running) => {
      for (let round = -1; round < messageRounds; round++) {
        // The first round warms up.
        for (const each of turned(running, round + turn + 1)) await once(each, round >= 0)
      }
    })
  }
}

function connections(start, { connectRounds, connects, warmConnects }, results, port) {
  return servers(start, [here('connect-server.mjs'), port], async (running) => {
    const able = running.filter(({ way }) => way !== 'none')
    for (let round = -1; round < connectRounds; round++) {
      for (const { way, ask } of turned(able, round + 1)) {
        const times = round < 0 ? warmConnects : connects
        const [connect, answer] = (await ask(String(times))).split(' ').map(Number)
        if (!(connect > 0 && answer > connect)) throw new Error(`${way}: no connection`)
        if (round < 0) continue
        results.add('connect', way, connect)
        results.add('answer', way, answer)
      }
    }
  })
}
