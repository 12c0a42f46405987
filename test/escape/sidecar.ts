/** The built sidecar under test, as a process of its own, with a permission profile in front of the attacker. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { openSession, send } from '../support/wire.ts'
import type { ProfileName } from './attempt.ts'
import { built, fixtures } from './build.ts'
import { endWithUs, plainly } from './children.ts'
import { namesFor } from './profiles.ts'
import { type Session, throughSidecar } from './session.ts'
import type { World } from './world.ts'

export const launcher = join(built, '..', '..', 'launcher', 'mcp-sidecar-launcher')

/** ESCAPE_COMPLETE=1: this machine has all that the suite needs, so that it is wrong to leave something out. */
export const complete = process.env['ESCAPE_COMPLETE'] === '1'

/** Why nothing can be confined here; undefined where it can. @throws Error instead, where that must not be */
export function missing(name = 'mcp-sidecar-launcher'): string | undefined {
  const file = [built, join(dirname(launcher), name)].find((each) => !existsSync(each))
  const reason =
    process.platform !== 'linux'
      ? 'there is nothing to confine with on this system'
      : file && `${file} was not built (npm run build)`
  if (reason && complete) throw new Error(`${reason}, and ESCAPE_COMPLETE is set`)
  return reason
}

type LogLine = { readonly msg?: string } & Readonly<Record<string, unknown>>

/** Variables that Node and the test runner put into every process are not among them. */
const environment = (world: World): Record<string, string> => ({
  PATH: process.env['PATH']?.includes('/usr/bin')
    ? '/usr/local/bin:/usr/bin:/bin'
    : (process.env['PATH'] ?? ''),
  HOME: world.home,
  SIDECAR_SECRET: 'canary-in-environment',
  LD_LIBRARY_PATH: '/nonexistent',
})

function spawnSidecar(
  world: World,
  args: readonly string[],
): { child: ChildProcess; lines: LogLine[]; errors: () => string } {
  const preload = pathToFileURL(join(fixtures, 'resolver.mjs'))
  preload.searchParams.set('names', JSON.stringify(namesFor(world.listeners.sniAddress)))
  preload.searchParams.set('log', world.lookups)
  // Whoever starts it may have left it descriptors that are nobody's business.
  const secret = openSync(world.secret, 'r')
  const [env, ...plain] = plainly
  const child = spawn(env, [...plain, process.execPath, '--import', preload.href, world.sidecar, ...args], {
    ...world.identity,
    cwd: world.base,
    detached: true,
    env: environment(world),
    stdio: ['ignore', 'pipe', 'pipe', secret],
  })
  closeSync(secret)
  endWithUs(child)
  const lines: LogLine[] = []
  let rest = ''
  let stderr = ''
  child.stdout?.setEncoding('utf8').on('data', (part: string) => {
    const parts = `${rest}${part}`.split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) if (line.startsWith('{')) lines.push(JSON.parse(line) as LogLine)
  })
  child.stderr?.setEncoding('utf8').on('data', (part: string) => {
    stderr += part
  })
  return { child, lines, errors: () => stderr }
}

const flags = (world: World): readonly string[] => [
  '--port',
  '0',
  '--admin-port',
  '0',
  '--config',
  world.config,
]

/** A start that must be refused: what it said. */
export async function refusedStart(world: World, permissions: string): Promise<string> {
  const args = [...flags(world), '--permissions', permissions, '--', process.execPath, world.server]
  const { child, lines, errors } = spawnSidecar(world, args)
  const started = setInterval(() => {
    if (lines.some(({ msg }) => msg === 'listening')) child.kill('SIGKILL')
  }, 20)
  const code = await new Promise<number | null>((resolve) => {
    child.once('close', resolve)
  })
  clearInterval(started)
  return code === null ? 'it started' : `${errors()}${lines.map((line) => JSON.stringify(line)).join('\n')}`
}

export class EscapeSidecar {
  readonly #child: ChildProcess
  readonly #world: World
  readonly lines: readonly LogLine[]
  readonly url: string
  readonly adminUrl: string

  private constructor(world: World, child: ChildProcess, lines: readonly LogLine[], listening: LogLine) {
    this.#world = world
    this.#child = child
    this.lines = lines
    this.url = String(listening['url'])
    this.adminUrl = String(listening['adminUrl'])
  }

  static async start(world: World, profile: ProfileName): Promise<EscapeSidecar> {
    const permissions = profile === 'off' ? [] : ['--permissions', world.profile(profile)]
    const { child, lines, errors } = spawnSidecar(world, [
      ...flags(world),
      ...permissions,
      '--',
      ...serverCommand(world, profile),
    ])
    let ended = false
    child.once('close', () => {
      ended = true
    })
    const listening = await until(() => {
      if (ended)
        throw new Error(`the sidecar with the profile ${profile} ended: ${errors()}${JSON.stringify(lines)}`)
      return lines.find(({ msg }) => msg === 'listening')
    }, `the sidecar with the profile ${profile} listens`)
    return new EscapeSidecar(world, child, lines, listening)
  }

  get pid(): number {
    return this.#child.pid as number
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** A session, and with it a server process of its own. */
  async open(): Promise<Session> {
    const headers = { Authorization: `Bearer ${this.#world.token}` }
    const session = await openSession(this.url, { headers }).catch((error: unknown) => {
      throw new Error(
        `${String(error)}\n${this.lines
          .slice(-8)
          .map((line) => JSON.stringify(line))
          .join('\n')}`,
      )
    })
    return throughSidecar(this.url, session, this.#world.attempts)
  }

  /** Whether it serves: its health, and a whole new session. */
  async serves(): Promise<boolean> {
    if (!this.alive || (await send(`${this.adminUrl}/healthz`, 'GET')).status !== 200) return false
    const session = await this.open()
    const { exit } = await session.run('/bin/sh', ['-c', 'exit 7'])
    await session.close()
    return exit === 7
  }

  /** Codes of what is not enforced, as the sidecar reported them. */
  get gaps(): ReadonlySet<string> {
    return new Set(this.lines.flatMap((line) => gapsIn(line)))
  }

  get residentBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8')
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024
  }

  async stop(): Promise<void> {
    if (!this.alive) return
    const closed = new Promise((resolve) => {
      this.#child.once('close', resolve)
    })
    this.#child.kill('SIGTERM')
    const late = setTimeout(() => this.#child.kill('SIGKILL'), 20_000)
    await closed
    clearTimeout(late)
  }
}

/** Under `none` the command is the script itself, since its folder alone is granted then. */
export function serverCommand(world: World, profile: ProfileName): readonly string[] {
  if (profile === 'none' || profile === 'network') return [world.server]
  if (profile === 'python' && world.python !== undefined) {
    return [world.python.file, join(world.program, 'attacker.py')]
  }
  return [process.execPath, world.server]
}

/** Lists of codes are either arrays or words in a text. */
function gapsIn(value: unknown): readonly string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, member]) => {
    if (key !== 'gaps') return gapsIn(member)
    return typeof member === 'string' ? member.split(' ') : Array.isArray(member) ? member.map(String) : []
  })
}

/** A process that has ended and was not yet collected by its parent is not. */
export function alive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return !/^\) Z/.test(stat.slice(stat.lastIndexOf(')')))
  } catch {
    return false
  }
}

/** Looks often; throws with `what` after `ms`. */
export async function until<T>(check: () => T | undefined | false, what: string, ms = 30_000): Promise<T> {
  const end = performance.now() + ms
  for (;;) {
    const found = check()
    if (found !== undefined && found !== false) return found
    if (performance.now() > end) throw new Error(`waited ${ms} ms in vain: ${what}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 10)
    })
  }
}
