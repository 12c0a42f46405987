/** What the launcher says on descriptor 4: one JSON object a line. */
import type { HostFacts, Mechanism, MechanismReport } from '../core/sandbox.ts'
import { attempts, fileAccesses, type Observation } from './observed.ts'

/** The last word of the launcher about what holds, before the server's program runs. */
export interface LauncherReport {
  readonly event: 'report'
  readonly pid: number
  readonly verdict: 'enforced' | 'weakened'
  readonly kernel: HostFacts
  readonly mechanisms: readonly MechanismReport[]
  /** Optional paths that are not there. */
  readonly skipped: readonly string[]
  /** Granted paths that are symlinks, and where they led. */
  readonly links: readonly { readonly path: string; readonly target: string }[]
}

export interface LauncherRefusal {
  readonly event: 'refused'
  readonly mechanism: string
  readonly reason: string
  readonly wayOut: string
}

export interface LauncherExit {
  readonly event: 'exit'
  readonly code: number | undefined
  readonly signal: string | undefined
  /** Why the launcher ended it: `memory`, `processes`; undefined when it ended by itself. */
  readonly reason: string | undefined
  /** Some of its processes could not be ended. */
  readonly unclean: boolean
}

/** Of what a server did, the launcher tells only where it is asked to watch. */
export type LauncherStatus = LauncherReport | LauncherRefusal | LauncherExit | Observation

/** @throws Error for a line that is none of them: the launcher is of another version, or no launcher */
export function readStatus(line: string): LauncherStatus {
  const value = objectOf(JSON.parse(line))
  switch (value['event']) {
    case 'report':
      return {
        event: 'report',
        pid: number(value, 'pid'),
        verdict: value['verdict'] === 'weakened' ? 'weakened' : oneOf(value, 'verdict', ['enforced']),
        kernel: factsOf(objectOf(value['kernel'])),
        mechanisms: list(value, 'mechanisms').map((each) => mechanismOf(objectOf(each))),
        skipped: list(value, 'skipped').map(String),
        links: list(value, 'links').map((each) => {
          const link = objectOf(each)
          return { path: text(link, 'path'), target: text(link, 'target') }
        }),
      }
    case 'refused':
      return {
        event: 'refused',
        mechanism: text(value, 'mechanism'),
        reason: text(value, 'reason'),
        wayOut: text(value, 'wayOut'),
      }
    case 'exit':
      return {
        event: 'exit',
        code: optional(value, 'code', number),
        signal: optional(value, 'signal', text),
        reason: optional(value, 'reason', text),
        unclean: value['unclean'] === true,
      }
    case 'file':
      return { event: 'file', access: oneOf(value, 'access', fileAccesses), path: text(value, 'path') }
    case 'tried':
      return { event: 'tried', what: oneOf(value, 'what', attempts), port: optional(value, 'port', number) }
    case 'size':
      return { event: 'size', rssBytes: number(value, 'rss'), processes: number(value, 'processes') }
    case 'lost':
      return { event: 'lost' }
  }
  throw new Error('no event of the launcher')
}

/** What `probe` prints. @throws Error */
export function readFacts(text: string): HostFacts {
  return factsOf(objectOf(JSON.parse(text)))
}

type Fields = Readonly<Record<string, unknown>>

function factsOf(value: Fields): HostFacts {
  return {
    release: text(value, 'release'),
    arch: text(value, 'arch'),
    landlockAbi: number(value, 'landlockAbi'),
    userNotify: value['userNotify'] === true,
    yama: optional(value, 'yama', number),
    containerSeccomp: number(value, 'containerSeccomp'),
    uid: number(value, 'uid'),
  }
}

const mechanisms: readonly Mechanism[] = [
  ...(['env', 'caps', 'nnp', 'rlimits', 'landlock.fs', 'landlock.net', 'landlock.scope'] as const),
  ...(['seccomp', 'broker', 'proxy', 'dns', 'watchdog'] as const),
]

function mechanismOf(value: Fields): MechanismReport {
  const selfTest = optional(value, 'selfTest', (fields, name) =>
    oneOf(fields, name, ['pass', 'fail', 'not-run'] as const),
  )
  const abi = optional(value, 'abi', number)
  const reason = optional(value, 'reason', text)
  return {
    mechanism: oneOf(value, 'mechanism', mechanisms),
    requested: value['requested'] === true,
    active: value['active'] === true,
    ...(selfTest === undefined ? {} : { selfTest }),
    ...(abi === undefined ? {} : { abi }),
    ...(reason === undefined ? {} : { reason }),
    covers: list(value, 'covers').map(String),
    gaps: list(value, 'gaps').map(String),
  }
}

function objectOf(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('not an object')
  return value as Fields
}

function optional<T>(value: Fields, name: string, read: (value: Fields, name: string) => T): T | undefined {
  return value[name] === undefined || value[name] === null ? undefined : read(value, name)
}

function text(value: Fields, name: string): string {
  const found = value[name]
  if (typeof found !== 'string') throw new Error(`${name} is not text`)
  return found
}

function number(value: Fields, name: string): number {
  const found = value[name]
  if (!Number.isSafeInteger(found)) throw new Error(`${name} is not a number`)
  return found as number
}

function list(value: Fields, name: string): readonly unknown[] {
  const found = value[name] ?? []
  if (!Array.isArray(found)) throw new Error(`${name} is not a list`)
  return found
}

function oneOf<T extends string>(value: Fields, name: string, words: readonly T[]): T {
  const found = words.find((word) => word === value[name])
  if (found === undefined) throw new Error(`${name} is none of ${words.join(', ')}`)
  return found
}
