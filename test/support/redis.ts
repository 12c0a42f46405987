/** Real Redis servers (the Debian package redis-server) on free loopback ports, gone when their test is. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { soon } from './limits.ts'

export interface RedisSetup {
  readonly password?: string
  /** PEM. With it, only TLS is spoken. */
  readonly tls?: { readonly key: string; readonly chain: string }
  /** Further lines of redis.conf. */
  readonly config?: readonly string[]
}

export interface RedisServer {
  readonly port: number
  readonly url: string
  readonly pid: number
  /** Without a chance to say goodbye. Resolves when it is gone. */
  kill(): Promise<void>
  /** It keeps its connections and answers nobody. */
  freeze(): void
  thaw(): void
  /** After {@link kill}: on the same port, with nothing in it. */
  restart(): Promise<void>
}

/** A server that accepts connections. Fails where the program is missing. */
export async function startRedis(t: Test, setup: RedisSetup = {}): Promise<RedisServer> {
  const folder = mkdtempSync(join(tmpdir(), 'redis-'))
  const port = await freePort()
  let child: ChildProcess | undefined
  t.teardown(async () => {
    await kill()
    rmSync(folder, { recursive: true, force: true })
  })

  async function start(): Promise<void> {
    // By its standard input, so that the password stands in no process table.
    const started = spawn('redis-server', ['-'], { cwd: folder, stdio: ['pipe', 'pipe', 'inherit'] })
    child = started
    let output = ''
    started.stdout.on('data', (data) => {
      output += data
    })
    const failed = new Promise<never>((_, reject) => {
      started.once('error', (error) =>
        reject(new Error(`redis-server cannot be started; install Debian's redis-server: ${error.message}`)),
      )
      started.once('exit', (code) => reject(new Error(`redis-server ended with ${code}: ${output}`)))
    })
    failed.catch(() => {})
    started.stdin.on('error', () => {})
    started.stdin.end(configuration(folder, port, setup))
    await Promise.race([failed, soon(() => accepts(port), 'redis-server accepts connections')])
  }

  async function kill(): Promise<void> {
    const running = child
    child = undefined
    if (running?.pid === undefined || running.exitCode !== null || running.signalCode !== null) return
    const gone = once(running, 'exit')
    running.kill('SIGKILL')
    await gone
  }

  await start()
  return {
    port,
    url: `${setup.tls === undefined ? 'redis' : 'rediss'}://127.0.0.1:${port}`,
    get pid() {
      return child?.pid ?? Number.NaN
    },
    kill,
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    restart: start,
  }
}

function configuration(folder: string, port: number, { password, tls, config = [] }: RedisSetup): string {
  const lines = [
    'bind 127.0.0.1',
    'daemonize no',
    'save ""',
    'appendonly no',
    `dir ${folder}`,
    'databases 16',
  ]
  if (tls === undefined) lines.push(`port ${port}`)
  else {
    writeFileSync(join(folder, 'key.pem'), tls.key)
    writeFileSync(join(folder, 'chain.pem'), tls.chain)
    lines.push('port 0', `tls-port ${port}`, 'tls-auth-clients no')
    lines.push(`tls-key-file ${folder}/key.pem`, `tls-cert-file ${folder}/chain.pem`)
  }
  if (password !== undefined) lines.push(`requirepass ${password}`)
  return `${[...lines, ...config].join('\n')}\n`
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
