/** The command line as a process of its own, for tests of signals and exit codes. */
import { execFileSync, spawn } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Test } from 'tap'
import { alive } from './processes.ts'
import { scriptedCommand, until } from './sidecar.ts'
import { checkRecordedWire, type WireOptOut } from './wire-checks.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
/** Without the hooks that the test runner puts into every process. */
const plainNode = ['/usr/bin/env', '-u', 'NODE_OPTIONS', process.execPath] as const
let program: { readonly file: string; readonly tap: string } | undefined
let starts = 0

/**
 * The sources as they are now, compiled once for each test file: compiling them at each start takes seconds. And what
 * records the wire of the sidecar from inside its process.
 */
function compiled(): { readonly file: string; readonly tap: string } {
  if (program !== undefined) return program
  const out = mkdtempSync(join(tmpdir(), 'mcp-sidecar-build-'))
  process.once('exit', () => rmSync(out, { recursive: true, force: true }))
  const tsc = join(root, 'node_modules', 'typescript7', 'bin', 'tsc')
  const options = ['--outDir', out, '--noCheck', '--noEmitOnError', 'false']
  const [env, ...node] = plainNode
  execFileSync(env, [...node, tsc, '-p', join(root, 'tsconfig.build.json'), ...options], { cwd: root })
  const tap = join(root, 'test', 'support', 'wire-tap.ts')
  const alone = ['--ignoreConfig', '--target', 'es2023', '--module', 'nodenext', '--types', 'node']
  execFileSync(env, [...node, tsc, tap, ...alone, ...options, '--rootDir', root], { cwd: root })
  symlinkSync(join(root, 'node_modules'), join(out, 'node_modules'))
  copyFileSync(join(root, 'package.json'), join(out, 'package.json'))
  program = {
    file: join(out, 'bin', 'mcp-sidecar.js'),
    tap: join(out, 'test', 'support', 'wire-tap.js'),
  }
  return program
}

/** The command itself, for what is to be started in a way of its own. */
export const cliCommand = (): readonly string[] => [...plainNode, compiled().file]

export interface CliLine {
  readonly level: string
  readonly msg: string
  readonly [member: string]: unknown
}

export interface CliProcess {
  readonly pid: number
  /** Of the client endpoint and of the admin endpoints, once it listens. */
  readonly url: string
  readonly adminUrl: string
  /** The JSON log lines so far. */
  readonly lines: readonly CliLine[]
  readonly stderr: string
  /** Its exit code, or the name of the signal that ended it. */
  readonly exited: Promise<number | string>
  signal(name: NodeJS.Signals): void
  /** Waits for a log line. */
  logged(msg: string, match?: (line: CliLine) => boolean): Promise<CliLine>
}

/** Starts `mcp-sidecar` on free ports and waits until it listens; it is killed when the test ends. */
export async function startCli(
  t: Test,
  flags: readonly string[],
  server: readonly string[] = scriptedCommand,
  wire?: WireOptOut,
): Promise<CliProcess> {
  const command = server.length === 0 ? [] : ['--', ...server]
  const started = spawnCli(t, ['--port', '0', '--admin-port', '0', ...flags, ...command], wire)
  const listening = await started.logged('listening')
  return Object.assign(started, {
    url: String(listening['url'] ?? ''),
    adminUrl: String(listening['adminUrl']),
  })
}

/** The same without waiting, for starts that are refused. */
export function spawnCli(t: Test, args: readonly string[], wire?: WireOptOut): CliProcess {
  const { file, tap } = compiled()
  const record = join(dirname(file), `wire-${++starts}`)
  writeFileSync(record, '')
  const preload = pathToFileURL(tap)
  preload.searchParams.set('to', record)
  const node = [...plainNode.slice(1), '--import', preload.href]
  const child = spawn(plainNode[0], [...node, file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const pid = child.pid as number
  const lines: CliLine[] = []
  let stderr = ''
  let rest = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    const parts = `${rest}${part}`.split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) if (line.startsWith('{')) lines.push(JSON.parse(line) as CliLine)
  })
  child.stderr.setEncoding('utf8').on('data', (part: string) => {
    stderr += part
  })
  const exited = new Promise<number | string>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal ?? ''))
  })
  t.teardown(() => {
    if (alive(pid)) child.kill('SIGKILL')
    const url = lines.find(({ msg }) => msg === 'listening')?.['url']
    if (typeof url === 'string') checkRecordedWire(t, record, Number(new URL(url).port), wire)
  })
  const find = (msg: string, match: (line: CliLine) => boolean): CliLine | undefined =>
    lines.find((line) => line.msg === msg && match(line))
  return {
    pid,
    url: '',
    adminUrl: '',
    lines,
    get stderr() {
      return stderr
    },
    exited,
    signal: (name) => child.kill(name),
    logged: async (msg, match = () => true) => {
      const ended = (): boolean => child.exitCode !== null || child.signalCode !== null
      await until(() => find(msg, match) !== undefined || ended(), `"${msg}" was logged`, 30_000)
      const found = find(msg, match)
      if (found === undefined) throw new Error(`it ended without having logged "${msg}": ${stderr}`)
      return found
    },
  }
}
