/** Looks at processes of this machine, for tests that start some and want them gone. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { until } from './sidecar.ts'

/** One line of the process table. */
interface Entry {
  readonly pid: number
  readonly parent: number
  readonly state: string
}

const proc = existsSync('/proc/self/stat')

function entry(pid: number): Entry | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name in parentheses may contain anything.
    const [state = '', parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { pid, parent: Number(parent), state }
  } catch {
    return undefined
  }
}

function table(): Entry[] {
  if (proc) {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
    return pids.flatMap((pid) => entry(Number(pid)) ?? [])
  }
  const listing = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,stat='], { encoding: 'utf8' })
  return listing
    .trim()
    .split('\n')
    .map((line) => {
      const [pid, parent, state = ''] = line.trim().split(/\s+/)
      return { pid: Number(pid), parent: Number(parent), state }
    })
}

/** True while it runs; a process that has ended and was not yet collected by its parent does not. */
export function alive(pid: number): boolean {
  const found = proc ? entry(pid) : table().find((each) => each.pid === pid)
  return found !== undefined && !found.state.startsWith('Z')
}

export function childrenOf(pid: number): number[] {
  return table()
    .filter(({ parent, state }) => parent === pid && !state.startsWith('Z'))
    .map((each) => each.pid)
}

/** A file that processes append their pids to; what is left of them is killed when the test ends. */
export interface PidFile {
  readonly path: string
  readonly pids: readonly number[]
  /** Waits until so many have written their pid. */
  wrote(count: number): Promise<readonly number[]>
  /** Waits until none of them runs any more. */
  gone(ms?: number): Promise<void>
}

export function pidFile(t: Test): PidFile {
  const path = join(folder(t), 'pids')
  const read = (): number[] =>
    existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n').filter(Boolean).map(Number) : []
  t.teardown(() => {
    for (const pid of read()) if (alive(pid)) process.kill(pid, 'SIGKILL')
  })
  return {
    path,
    get pids() {
      return read()
    },
    wrote: async (count) => {
      await until(() => read().length >= count, `${count} processes have started`, 10_000)
      return read()
    },
    gone: (ms = 20_000) =>
      until(() => !read().some(alive), `processes ${read().filter(alive)} have ended`, ms),
  }
}

/** An empty folder that lives as long as the test. */
export function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'mcp-sidecar-test-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}
