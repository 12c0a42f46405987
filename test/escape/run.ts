/** Makes the attempts, judges them and counts. Knows no test runner, so that a container needs none. */
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import type { Attempt, Place, ProfileName } from './attempt.ts'
import { endWithUs } from './children.ts'
import { type Control, controls } from './controls.ts'
import { pythonControls } from './controls-python.ts'
import { attempts } from './rows.ts'
import { served, serveRows } from './rows-serve.ts'
import { refusedStarts, writeProfile } from './rows-starts.ts'
import { unconfined } from './session.ts'
import { complete, EscapeSidecar, refusedStart, serverCommand } from './sidecar.ts'
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
  readonly without?: readonly number[]
  /** The newest Landlock that the launcher sees. */
  readonly abi?: number
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

/** Two sidecars at a time: what one of them computes, the other waits. */
const lanes: readonly (readonly ProfileName[])[] = [
  ['main'],
  ['bomb', 'none', 'network', 'public', 'proc', 'full', 'off', 'python'],
]

/** Of the list of escape attempts. */
const rowCount = 84

/**
 * Says that a part is left out, and why: for lack of something that this machine could have.
 *
 * ESCAPE_COMPLETE=1, as in CI, makes it a failure, so that the suite does not shrink unseen.
 */
export function leftOut(to: Pick<Listener, 'check' | 'note'>, why: string): void {
  if (complete) to.check(false, why, 'ESCAPE_COMPLETE is set')
  else to.note(why)
}

/** All of it as one user, 0 or another; only root can choose. */
export async function attemptAll(uid: number, to: Listener, only: Only = {}): Promise<void> {
  const world = await makeWorld(uid, only.abi)
  const findings: Finding[] = []
  const left: Attempt[] = []
  const found = (finding: Finding): void => {
    findings.push(finding)
    to.found(finding)
  }
  try {
    const lane = async (profiles: readonly ProfileName[]): Promise<void> => {
      for (const profile of profiles) {
        if (includes(only.profiles, profile))
          left.push(...(await underProfile(world, profile, { ...to, found }, only)))
      }
    }
    await Promise.all(lanes.map(lane))
    if (only.profiles === undefined) {
      await starts(world, { ...to, found }, only)
      if (includes(only.rows, 83)) await served(world, found)
    }
    await untouched(world, to)
  } finally {
    await world.close()
  }
  if (only.rows === undefined && only.profiles === undefined && only.without === undefined)
    nothingMissing(findings, left, to)
  const kernel = only.abi === undefined ? '' : `, Landlock ABI ${only.abi}`
  to.note(`as uid ${uid}${kernel}: ${summary(findings)}`)
}

/** Of a whole run: every row and every attempt of every profile, but those that were left out with a reason. */
function nothingMissing(findings: readonly Finding[], left: readonly Attempt[], to: Listener): void {
  const tried = new Set([...findings, ...left].map(({ row }) => row))
  const rows = Array.from({ length: rowCount }, (_, index) => index + 1)
  const untried = rows.filter((row) => !tried.has(row))
  to.check(untried.length === 0, `all ${rowCount} rows of the list were tried`, `not ${untried.join(', ')}`)
  const unknown = [...tried].filter((row) => !rows.includes(row))
  to.check(unknown.length === 0, 'no row was tried that is not in the list', unknown.join(', '))
  const planned =
    attempts.reduce((sum, { profiles }) => sum + profiles.length, 0) + refusedStarts.length + serveRows.length
  const made = findings.length + left.length
  to.check(made === planned, 'every attempt was made under every profile', `${made} of ${planned}`)
}

/** @returns what was left out, for a reason that was said */
async function underProfile(
  world: World,
  profile: ProfileName,
  to: Listener,
  only: Only,
): Promise<readonly Attempt[]> {
  const own = attempts.filter(
    ({ profiles, row }) =>
      profiles.includes(profile) && includes(only.rows, row) && only.without?.includes(row) !== true,
  )
  if (profile === 'python' && world.python === undefined) {
    leftOut(to, 'no python3: attempts from Python are left out')
    return own
  }
  const left: Attempt[] = []
  const sidecar = await EscapeSidecar.start(world, profile)
  try {
    let place = await placeIn(world, sidecar)
    for (const each of [...controls, ...pythonControls])
      if (each.profiles.includes(profile) && !(await judgeControl(each, profile, place, to)))
        place = await placeIn(world, sidecar)
    for (const each of own) {
      if (each.needs === 'port 443' && world.listeners.sniAddress === undefined) {
        // The kernel's refusal: nothing that could be installed.
        to.note(`this user may not listen on port 443, so this is left out: ${each.row} ${each.title}`)
        left.push(each)
        continue
      }
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
  return left
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

/** What came of an attempt, and whom it reached that nobody may reach. */
async function outcomeIn(
  { act, seen }: Attempt,
  place: Place,
): Promise<{ outcome: string; reached: readonly string[] }> {
  const before = seen ? (await place.world.reached()).length : 0
  const outcome = await act(place).catch((error: unknown) => `failed: ${String(error)}`)
  return { outcome, reached: seen ? (await place.world.reached()).slice(before) : [] }
}

async function judge(attempt: Attempt, profile: ProfileName, place: Place): Promise<Omit<Finding, 'ms'>> {
  const { row, held, gap } = attempt
  const title = `${attempt.title} (${profile})`
  const { outcome, reached } = await outcomeIn(attempt, place)
  if (reached.length > 0)
    return { row, title, verdict: 'escaped', outcome: `${outcome}, and reached ${reached.join(', ')}` }
  if (held.includes(outcome)) return { row, title, verdict: 'held', outcome }
  const expected = `${outcome}, not ${held.join(' or ')}`
  if (gap === undefined || outcome !== 'ok') return { row, title, verdict: 'escaped', outcome: expected }
  if (place.sidecar?.gaps.has(gap)) return { row, title, verdict: 'reported', outcome: gap }
  return { row, title, verdict: 'escaped', outcome: `${expected}, and ${gap} is not in the report` }
}

/** @returns false when it is not as it should be, and the server may be gone */
async function judgeControl(
  { title, act, expected: usual, older }: Control,
  profile: ProfileName,
  place: Place,
  to: Listener,
): Promise<boolean> {
  const got = await act(place).catch((error: unknown) => `failed: ${String(error)}`)
  const { abi = Number.POSITIVE_INFINITY } = place.world
  const tier = older !== undefined && abi < older.below ? older : undefined
  const expected = tier === undefined ? usual : tier.expected
  if (tier !== undefined)
    to.check(place.sidecar?.gaps.has(tier.gap) === true, `the report has ${tier.gap} (${profile})`)
  const right = expected instanceof RegExp ? expected.test(String(got)) : got === expected
  to.check(right, `allowed: ${title} (${profile})`, `${JSON.stringify(got)}, not ${String(expected)}`)
  return right
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
  const bystander = spawn('/bin/sleep', ['1000'], { ...world.identity, stdio: 'ignore', detached: true })
  endWithUs(bystander)
  const secret = openSync(world.secret, 'r')
  const options = {
    ...world.identity,
    cwd: world.base,
    stdio: ['pipe', 'pipe', 'inherit', secret],
    env: { PATH: process.env['PATH'], HOME: world.home, LD_LIBRARY_PATH: '/nonexistent' },
  }
  const session = unconfined(serverCommand(world, 'main'), options, world.attempts)
  closeSync(secret)
  const pid = bystander.pid as number
  const pids = { sidecar: pid, supervisor: pid, server: session.pid, victim: world.victim.facts.pid }
  const place: Place = { world, session, victim: world.victim.facts, pids, sidecar: undefined }
  const stoppedAnyway: string[] = []
  try {
    const tried = new Set<string>()
    for (const attempt of attempts) {
      const { title, row } = attempt
      if ('never' in attempt.unconfined || tried.has(title) || !includes(only.rows, row)) continue
      tried.add(title)
      const begun = performance.now()
      const { outcome, reached } = await outcomeIn(attempt, place)
      const told = reached.length === 0 ? outcome : `${outcome}, and reached ${reached.join(', ')}`
      to.found({ row, title, verdict: 'held', outcome: told, ms: performance.now() - begun })
      if ('varies' in attempt.unconfined || (attempt.root && uid !== 0)) {
        // Whatever the kernel says, it was asked.
        to.check(
          /^(ok|E[A-Z0-9]+|SIG[A-Z]+)\b/.test(outcome),
          `${row} ${title}: ${told}`,
          'no answer of a kernel',
        )
        continue
      }
      const expected = attempt.unconfined.outcomes
      const right = expected.includes(outcome) && (!attempt.seen || reached.length > 0)
      to.check(
        right,
        `${row} ${title}: ${told}`,
        `not ${expected.join(' or ')}${attempt.seen ? ' and seen' : ''}`,
      )
      if (right && attempt.held.includes(outcome) && reached.length === 0)
        stoppedAnyway.push(`${row} ${title}`)
    }
    to.note(`the same without a sandbox: ${stoppedAnyway.join('; ') || 'nothing'}`)
  } finally {
    bystander.kill('SIGKILL')
    await session.close()
    await world.close()
  }
}
