/** A sidecar in this process in front of a real server process, for tests. */
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { Config } from '../../src/config/config.ts'
import { type Flags, loadConfig } from '../../src/config/load.ts'
import type { Clock } from '../../src/core/types.ts'
import { type Sidecar, startSidecar } from '../../src/main.ts'
import type { SidecarLogger } from '../../src/observe/logger.ts'
import { send } from './wire.ts'
import { checkWireOf, type WireChecks, type WireOptOut } from './wire-checks.ts'

export const scriptedServer = fileURLToPath(new URL('../fixtures/scripted-server.mjs', import.meta.url))

/** Starts it without the hooks that the test runner puts into every process: they take longer than the server. */
export const scriptedCommand: readonly string[] = [
  '/usr/bin/env',
  '-u',
  'NODE_OPTIONS',
  process.execPath,
  scriptedServer,
]

export interface LogLine {
  readonly level: string
  readonly text: string
  readonly fields: Readonly<Record<string, unknown>>
}

type Partly<T> = { readonly [K in keyof T]?: T[K] extends readonly unknown[] ? T[K] : Partial<T[K]> }

export interface TestOptions {
  /** Switches of the scripted server, or a whole command. */
  readonly server?: readonly string[]
  readonly command?: readonly string[]
  readonly flags?: Flags
  /** Changes to the loaded configuration, section by section. */
  readonly config?: Partly<Config>
  /** The sidecar's own environment; default: PATH and HOME of this one. */
  readonly env?: Readonly<Record<string, string>>
  /** Default: real time. */
  readonly clock?: Clock
  /** Default: the launcher that was built. */
  readonly launcher?: string
  /** Failed attempts of one address that are let pass; default: so many that no test meets the limit by accident. */
  readonly failedAttempts?: number
  /** Only for what has no other way: every message of the sidecar is checked against the official schemas. */
  readonly wire?: WireOptOut
}

export interface TestSidecar {
  readonly sidecar: Sidecar
  readonly url: string
  readonly base: string
  readonly adminUrl: string
  readonly logs: readonly LogLine[]
  readonly config: Config
  readonly wire: Pick<WireChecks, 'verdict'>
  /** The text of /metrics. */
  metrics(): Promise<string>
  /** One value of /metrics, summed over the lines that start with this text; 0 if there is none. */
  metric(start: string): Promise<number>
}

/** Starts a sidecar on free loopback ports; it is stopped when the test ends. */
export async function startTestSidecar(t: Test, options: TestOptions = {}): Promise<TestSidecar> {
  const logs: LogLine[] = []
  const config = await testConfig(options)
  const env = options.env ?? { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '' }
  const log = recordingLogger(logs)
  const clock = options.clock === undefined ? {} : { clock: options.clock }
  const launcher = options.launcher === undefined ? {} : { launcher: options.launcher }
  const wire = checkWireOf(t, config.server.command, options.wire)
  const sidecar = await startSidecar(config, {
    env,
    cwd: process.cwd(),
    log,
    version: '0.0.0-test',
    ...clock,
    ...launcher,
  })
  wire.listensOn(Number(new URL(sidecar.url).port))
  t.teardown(async () => {
    await sidecar.stop()
    wire.finish()
  })
  const metrics = async (): Promise<string> => (await send(`${sidecar.adminUrl}/metrics`, 'GET')).body
  return {
    sidecar,
    url: sidecar.url,
    base: sidecar.url.replace(/\/mcp$/, ''),
    adminUrl: sidecar.adminUrl,
    logs,
    config,
    wire,
    metrics,
    metric: async (start) => {
      const lines = (await metrics()).split('\n').filter((line) => line.startsWith(start))
      return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
    },
  }
}

export async function testConfig(options: TestOptions = {}): Promise<Config> {
  const command = options.command ?? [...scriptedCommand, ...(options.server ?? [])]
  const flags = { port: '0', adminPort: '0', ...options.flags }
  const { config } = await loadConfig({ flags, env: {}, cwd: process.cwd(), command })
  const { policy } = config
  const failures = { ...policy.auth.failures, attempts: options.failedAttempts ?? 1_000_000 }
  const changed: Record<string, unknown> = {
    ...config,
    shutdownGraceMs: 1000,
    policy: { ...policy, auth: { ...policy.auth, failures } },
  }
  for (const [section, values] of Object.entries(options.config ?? {})) {
    const before = changed[section]
    changed[section] = typeof before === 'object' ? { ...before, ...(values as object) } : values
  }
  return changed as unknown as Config
}

export function recordingLogger(logs: LogLine[]): SidecarLogger {
  const at = (level: string) => (fields: object, text: string) => {
    logs.push({ level, text, fields: fields as Record<string, unknown> })
  }
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    setLevel: () => {},
    flush: () => Promise.resolve(),
  }
}

/** Waits until `check` holds, looking often; fails with `what` after `ms`. */
export async function until(
  check: () => boolean | Promise<boolean>,
  what: string,
  ms = 20_000,
): Promise<void> {
  const end = performance.now() + ms
  while (!(await check())) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms in vain: ${what}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 10)
    })
  }
}
