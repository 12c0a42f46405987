/** Makes the attempts, judges them and counts. Knows no test runner, so that a container needs none. */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Attempt, Place, ProfileName } from './attempt.ts'
import { type Control, controls, pythonControls } from './controls.ts'
import { attempts } from './rows.ts'
import { refusedStarts, writeProfile } from './rows-starts.ts'
import { unconfined } from './session.ts'
import { EscapeSidecar, refusedStart, serverCommand } from './sidecar.ts'
import { makeWorld, type World } from './world.ts'

/** `reported`: it succeeds, as the enforcement report says. */
export type Verdict = 'held' | 'reported' | 'escaped'

export interface Finding {
  readonly row: number
  readonly title: string
  readonly verdict: Verdict
  /** What came of it, and what should have. */
  readonly outcome: string
  readonly ms: number
}

/** What is left out; default nothing. */
export interface Only {
  readonly rows?: readonly number[]
  readonly profiles?: readonly string[]
}

const includes = <T>(list: readonly T[] | undefined, value: T): boolean =>
  list === undefined || list.includes(value)

export interface Listener {
  /** An attempt. */
  found(finding: Finding): void
  /** Something else that must be as it is. */
  check(ok: boolean, title: string, details?: string): void
  note(text: string): void
}

const profilesInOrder: readonly ProfileName[] = [
  'main',
  'none',
  'network',
  'proc',
  'full',
  'off',
  'python',
  'bomb',
]

/** All of it as one user, 0 or another; only root can choose. */
export async function attemptAll(uid: number, to: Listener, only: Only = {}): Promise<void> {
  const world = await makeWorld(uid)
  const findings: Finding[] = []
  const found = (finding: Finding): void => {
    findings.push(finding)
    to.found(finding)
  }
  try {
    for (const profile of profilesInOrder) {
      if (includes(only.profiles, profile)) await underProfile(world, profile, { ...to, found }, only)
    }
    if (only.profiles === undefined) await starts(world, { ...to, found }, only)
    await untouched(world, to)
  } finally {
    await world.close()
  }
  to.note(`as uid ${uid}: ${summary(findings)}`)
}

async function underProfile(world: World, profile: ProfileName, to: Listener, only: Only): Promise<void> {
  if (profile === 'python' && world.python === undefined) {
    to.note('no python3: attempts from Python are left out')
    return
  }
  const sidecar = await EscapeSidecar.start(world, profile)
  try {
    let place = await placeIn(world, sidecar)
    for (const each of [...controls, ...pythonControls])
      if (each.profiles.includes(profile)) await judgeControl(each, profile, place, to)
    for (const each of attempts) {
      if (!each.profiles.includes(profile) || !includes(only.rows, each.row)) continue
      const begun = performance.now()
      const finding = await judge(each, profile, place)
      to.found({ ...finding, ms: performance.now() - begun })
      if (!sidecar.alive) throw new Error(`the sidecar ended: ${finding.title}`)
      if (finding.outcome.startsWith('gone')) {
        await place.session.close()
        place = await placeIn(world, sidecar)
      }
    }
    to.check(await sidecar.serves(), `the sidecar with the profile ${profile} serves after all that`)
    await place.session.close()
  } finally {
    await sidecar.stop()
  }
}

async function placeIn(world: World, sidecar: EscapeSidecar): Promise<Place> {
  const session = await sidecar.open()
  const python = await session.eval('import os\noutcome = [os.getpid(), os.getppid()]')
  const { value } =
    python.error === undefined ? python : await session.eval('return [process.pid, process.ppid]')
  const [server, supervisor] = value as [number, number]
  const pids = { sidecar: sidecar.pid, supervisor, server, victim: world.victim.facts.pid }
  return { world, session, victim: world.victim.facts, pids, sidecar }
}

async function judge(attempt: Attempt, profile: ProfileName, place: Place): Promise<Omit<Finding, 'ms'>> {
  const { row, held, gap, seen } = attempt
  const title = `${attempt.title} (${profile})`
  const before = seen ? (await place.world.reached()).length : 0
  const outcome = await attempt.act(place).catch((error: unknown) => `failed: ${String(error)}`)
  const reached = seen ? (await place.world.reached()).slice(before) : []
  if (reached.length > 0)
    return { row, title, verdict: 'escaped', outcome: `${outcome}, and reached ${reached.join(', ')}` }
  if (held.includes(outcome)) return { row, title, verdict: 'held', outcome }
  const expected = `${outcome}, not ${held.join(' or ')}`
  if (gap === undefined || outcome !== 'ok') return { row, title, verdict: 'escaped', outcome: expected }
  if (place.sidecar?.gaps.has(gap)) return { row, title, verdict: 'reported', outcome: gap }
  return { row, title, verdict: 'escaped', outcome: `${expected}, and ${gap} is not in the report` }
}

async function judgeControl(
  { title, act, expected }: Control,
  profile: ProfileName,
  place: Place,
  to: Listener,
): Promise<void> {
  const got = await act(place).catch((error: unknown) => `failed: ${String(error)}`)
  const right = expected instanceof RegExp ? expected.test(String(got)) : got === expected
  to.check(right, `allowed: ${title} (${profile})`, `${JSON.stringify(got)}, not ${String(expected)}`)
}

/** Rows that a start must refuse. Two at a time: a start is mostly waiting. */
async function starts(world: World, to: Listener, only: Only): Promise<void> {
  const waiting = refusedStarts
    .filter(({ row }) => includes(only.rows, row))
    .map((each, index) => ({ each, path: writeProfile(world, index, each) }))
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { row, title, says } = next.each
      const begun = performance.now()
      const said = await refusedStart(world, next.path)
      const verdict = says.test(said) && said !== 'it started' ? 'held' : 'escaped'
      to.found({
        row,
        title: `a profile that ${title}`,
        verdict,
        outcome: verdict === 'held' ? 'refused' : said,
        ms: performance.now() - begun,
      })
    }
  }
  await Promise.all([worker(), worker()])
}

/** What is outside is as it was. */
async function untouched(world: World, to: Listener): Promise<void> {
  const reached = await world.reached()
  to.check(reached.length === 0, 'nothing reached the victim or a forbidden listener', reached.join(', '))
  const { event: _, priority, scheduler, ...changed } = await world.victim.end()
  const touched = Object.entries(changed).filter(([, value]) => value !== 0)
  to.check(touched.length === 0, "the victim's things are as they were", JSON.stringify(touched))
  to.check(
    priority === 0 && scheduler === 0,
    'the victim runs as it did',
    `priority ${priority}, class ${scheduler}`,
  )
}

export function summary(findings: readonly Finding[]): string {
  const rows = new Map<number, Verdict>()
  const worst: readonly Verdict[] = ['held', 'reported', 'escaped']
  for (const { row, verdict } of findings) {
    const before = rows.get(row) ?? 'held'
    rows.set(row, worst.indexOf(verdict) > worst.indexOf(before) ? verdict : before)
  }
  const count = (verdict: Verdict): number => [...rows.values()].filter((each) => each === verdict).length
  const escaped = [...rows].flatMap(([row, verdict]) => (verdict === 'escaped' ? [row] : []))
  const failed =
    escaped.length === 0
      ? ''
      : `, ${escaped.length} not held (${escaped.toSorted((a, b) => a - b).join(', ')})`
  return `${rows.size} rows tried with ${findings.length} attempts, ${count('held')} held, ${count('reported')} reported as not enforceable${failed}`
}

/** The same without a sandbox, where it is harmless: what does not succeed there shows nothing. */
export async function withoutSandbox(uid: number, to: Listener, only: Only = {}): Promise<void> {
  const world = await makeWorld(uid)
  const bystander: ChildProcess = spawn('/bin/sleep', ['1000'], {
    ...world.identity,
    stdio: 'ignore',
    detached: true,
  })
  const [file, ...args] = serverCommand(world, 'main')
  const { openSync } = await import('node:fs')
  const secret = openSync(world.secret, 'r')
  const options = {
    ...world.identity,
    cwd: world.base,
    stdio: ['pipe', 'pipe', 'inherit', secret],
    env: { PATH: process.env['PATH'], HOME: world.home, LD_LIBRARY_PATH: '/nonexistent' },
  }
  const session = unconfined([file ?? '', ...args], options, world.attempts)
  const pids = {
    sidecar: bystander.pid as number,
    supervisor: bystander.pid as number,
    server: session.pid,
    victim: world.victim.facts.pid,
  }
  const place: Place = { world, session, victim: world.victim.facts, pids, sidecar: undefined }
  try {
    const tried = new Set<string>()
    for (const attempt of attempts) {
      const { title, unconfined: free, seen, row } = attempt
      if ('never' in free || tried.has(title) || !includes(only.rows, row)) continue
      tried.add(title)
      const before = seen ? (await world.reached()).length : 0
      const begun = performance.now()
      const outcome = await attempt.act(place).catch((error: unknown) => `failed: ${String(error)}`)
      const reached = seen ? (await world.reached()).slice(before) : []
      to.found({ row, title, verdict: 'held', outcome, ms: performance.now() - begun })
      const may = 'varies' in free || (attempt.root && uid !== 0) ? [outcome] : free.outcomes
      const right =
        may.includes(outcome) && (!seen || reached.length > 0 || outcome !== 'ok' || 'varies' in free)
      to.check(
        right && !outcome.startsWith('failed'),
        `${row} ${title}: ${outcome}`,
        `not ${may.join(' or ')}, reached ${reached.join(', ')}`,
      )
    }
  } finally {
    bystander.kill('SIGKILL')
    await session.close()
    await world.close()
  }
}
