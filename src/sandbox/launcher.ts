/** Finds the launcher and asks it what it can do here. */
import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { HostFacts } from '../core/sandbox.ts'
import { type LauncherRefusal, type LauncherReport, readFacts, readStatus } from './status.ts'

/** Where `npm run build` puts it, seen from the sources and from what was built of them. */
const places = ['../../launcher/mcp-sidecar-launcher', '../../dist/launcher/mcp-sidecar-launcher']

/** The launcher cannot be used at all. */
export class LauncherError extends Error {
  override readonly name = 'LauncherError'
  readonly wayOut: string

  constructor(message: string, wayOut: string) {
    super(message)
    this.wayOut = wayOut
  }
}

/** The path of the launcher; undefined when it was not built: there was no C compiler, or this is not Linux. */
export function findLauncher(): string | undefined {
  return places
    .map((place) => fileURLToPath(new URL(place, import.meta.url)))
    .find((path) => {
      try {
        accessSync(path, constants.F_OK)
        return true
      } catch {
        return false
      }
    })
}

/** It answers within milliseconds; a machine under load is given this long. Milliseconds. */
const answerMs = 10_000
const maxAnswerBytes = 64 * 1024

/** What this kernel can do. @throws LauncherError */
export async function probeHost(launcher: string): Promise<HostFacts> {
  const { stdout, stderr } = await run(launcher, ['probe'])
  try {
    return readFacts(stdout)
  } catch (thrown) {
    throw new LauncherError(
      `${launcher} does not say what it can do: ${(thrown as Error).message}${hint(stderr)}`,
      'build it again with npm run build',
    )
  }
}

/**
 * Has the launcher set everything up as for a server, and test it; nothing is run.
 *
 * @param policy records as for a start
 * @throws LauncherError
 */
export async function checkHost(launcher: string, policy: Buffer): Promise<LauncherReport | LauncherRefusal> {
  const { status, stderr } = await run(
    launcher,
    ['exec', '--', launcher, '--version'],
    Buffer.concat([policy, Buffer.from('check 1\0')]),
  )
  for (const line of status.split('\n')) {
    if (line === '') continue
    let event: ReturnType<typeof readStatus>
    try {
      event = readStatus(line)
    } catch (thrown) {
      throw new LauncherError(
        `what the launcher reports cannot be read: ${(thrown as Error).message}`,
        'build it again with npm run build',
      )
    }
    if (event.event === 'report' || event.event === 'refused') return event
  }
  throw new LauncherError(
    `the launcher ended without a report${hint(stderr)}`,
    'see its message; mcp-sidecar doctor tries it again',
  )
}

function hint(stderr: string): string {
  const line = stderr.trim().split('\n')[0] ?? ''
  return line === '' ? '' : `: ${line.slice(0, 300)}`
}

interface Answer {
  readonly stdout: string
  readonly stderr: string
  readonly status: string
}

function run(launcher: string, args: readonly string[], policy: Buffer = Buffer.alloc(0)): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const child = spawn(launcher, args, {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
      env: {},
    })
    const timer = setTimeout(() => child.kill('SIGKILL'), answerMs)
    const collected = [1, 2, 4].map((descriptor) => {
      const chunks: Buffer[] = []
      let bytes = 0
      child.stdio[descriptor]?.on('error', () => {})
      ;(child.stdio[descriptor] as NodeJS.ReadableStream | undefined)?.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes <= maxAnswerBytes) chunks.push(chunk)
      })
      return chunks
    })
    child.once('error', (cause: NodeJS.ErrnoException) => {
      clearTimeout(timer)
      const why =
        cause.code === 'EACCES'
          ? 'it may not be executed (is its file system mounted noexec?)'
          : cause.message
      reject(
        new LauncherError(
          `the launcher ${launcher} cannot be started: ${why}`,
          'put it where programs may run',
        ),
      )
    })
    child.once('close', () => {
      clearTimeout(timer)
      const [stdout, stderr, status] = collected.map((chunks) => Buffer.concat(chunks).toString('utf8'))
      resolve({ stdout: stdout as string, stderr: stderr as string, status: status as string })
    })
    const descriptor = child.stdio[3] as NodeJS.WritableStream | null | undefined
    // It may have ended before it read everything.
    descriptor?.on('error', () => {})
    descriptor?.end(policy)
  })
}
