/** Starts server processes through the launcher, within what their profile allows. */

import { builtinProfile } from '../core/profile.ts'
import type {
  Confinement,
  EgressChild,
  EnforcementReport,
  HostFacts,
  Launch,
  Profile,
} from '../core/sandbox.ts'
import { checkHost, LauncherError, probeHost } from './launcher.ts'
import type { Observation } from './observed.ts'
import { policyRecords } from './records.ts'
import { brokenPromise, enforcementOf, type Refusal, refusedBy, unenforced } from './report.ts'
import { type LauncherExit, type LauncherStatus, readStatus } from './status.ts'

export interface SandboxOptions {
  /** Undefined: nothing is confined; the launcher, where there is one, still takes privileges and guards the end. */
  readonly profile: Profile | undefined
  /** Undefined when it was not built. */
  readonly launcher: string | undefined
  /**
   * Has a launcher in another container, which is then the one that starts the server, try out a policy: its report, as
   * one JSON object, or undefined when nobody listens there yet. Rejects with an Error that says what is wrong.
   */
  readonly elsewhere?: ((policy: Buffer) => Promise<string | undefined>) | undefined
  /** Files and folders of the sidecar's own, which no profile opens. Absolute. */
  readonly hidden: readonly string[]
  /** These as of the records. */
  readonly readonly?: readonly string[] | undefined
  readonly program?: readonly string[] | undefined
  readonly follow?: ((path: string) => string) | undefined
  /** Codes of what the sidecar itself knows to be missing from the protection of files. */
  readonly fileGaps?: readonly string[] | undefined
  /** A stay at the egress proxy for one process; undefined where the profile has no allow-list. */
  readonly admit: (() => EgressChild) | undefined
  readonly graceMs: number
  readonly requireContainerSeccomp: boolean
  /** Calls with what was measured at each start. */
  readonly onReport: (report: EnforcementReport) => void
  /** Called at each start, for what takes what the server does; undefined: it is not watched. */
  readonly watch?: (() => (observation: Observation) => void) | undefined
}

/** What the profile asks for cannot be enforced here, and nothing says that it may be done without. */
export class Unenforceable extends Error {
  override readonly name = 'Unenforceable'
  readonly report: EnforcementReport

  constructor(report: EnforcementReport) {
    const { profile, refusal: { mechanism, reason, wayOut } = nothing } = report
    const what =
      profile === undefined
        ? 'the server cannot be started'
        : `the permission profile ${profile.name} cannot be enforced`
    // A builtin profile has no place for an opt-out.
    const place =
      wayOut.includes('allowDegraded') && profile !== undefined && builtinProfile(profile.name) !== undefined
        ? ', in a profile file of its own (one that has nothing else grants what none does)'
        : ''
    super(`${what}: ${mechanism}: ${reason}${wayOut === '' ? '' : `; ${wayOut}${place}`}`)
    this.report = report
  }
}

const nothing = { mechanism: 'launcher', reason: 'nothing is known', wayOut: '' }

const noLauncher = {
  mechanism: 'launcher',
  reason: 'there is no launcher: it is built where there is a C compiler, on Linux',
  wayOut:
    'install one (Debian: gcc and libc6-dev) and run npm run build; or accept that nothing is enforced with allowDegraded: [no-enforcement]',
}

/**
 * Tries out what the profile needs.
 *
 * @throws Unenforceable
 */
export async function createSandbox(options: SandboxOptions): Promise<Sandbox> {
  if (options.elsewhere !== undefined) return await createElsewhere(options.elsewhere, options)
  const { profile, launcher } = options
  const accepted = profile === undefined || profile.allowDegraded.includes('no-enforcement')
  if (launcher === undefined) {
    if (!accepted) throw new Unenforceable(refusedBy(profile, noLauncher))
    return new Sandbox(options, undefined, unenforced(profile))
  }
  let facts: HostFacts | undefined
  try {
    facts = await probeHost(launcher)
    const found = await tried(launcher, facts, options)
    if (found.verdict !== 'refused') return new Sandbox(options, facts, found)
    if (!accepted || couldEnforce(profile, facts)) throw new Unenforceable(found)
  } catch (thrown) {
    if (!(thrown instanceof LauncherError)) throw thrown
    const { message: reason, wayOut } = thrown
    if (!accepted || couldEnforce(profile, facts))
      throw new Unenforceable(refusedBy(profile, { mechanism: 'launcher', reason, wayOut }, facts))
  }
  return new Sandbox({ ...options, launcher: undefined }, facts, unenforced(profile))
}

/**
 * Doing without is for hosts where nothing can be enforced. On any other it is this profile that is wrong, or this moment,
 * which a server may have brought about.
 */
function couldEnforce(profile: Profile | undefined, facts: HostFacts | undefined): boolean {
  return profile !== undefined && facts !== undefined && facts.landlockAbi > 0 && mayBroker(facts)
}

/** Yama may keep everybody without privileges from reading where a caller wants to connect to. */
function mayBroker({ userNotify, yama = 0 }: HostFacts): boolean {
  return userNotify && yama < 2
}

/** What would hold for a server started now. @throws LauncherError */
async function tried(
  launcher: string,
  facts: HostFacts,
  options: SandboxOptions,
): Promise<EnforcementReport> {
  const stay = options.admit?.()
  try {
    const found = await checkHost(launcher, recordsOf(options, facts, stay))
    if (found.event === 'refused') return refusedBy(options.profile, found, facts)
    return enforcementOf(options.profile, found, options.fileGaps)
  } finally {
    stay?.close()
  }
}

const nobodyYet = {
  mechanism: 'launcher',
  reason:
    'the launcher of the server does not listen yet; until it does, and has reported, no server is started',
  wayOut: 'start the container of the server, with mcp-sidecar-launcher serve',
}

/**
 * Containers start in any order, so that one that is not there yet is no reason to give up: each start is refused or
 * reported by the launcher itself.
 */
async function createElsewhere(
  ask: (policy: Buffer) => Promise<string | undefined>,
  options: SandboxOptions,
): Promise<Sandbox> {
  const { profile, admit } = options
  const stay = admit?.()
  let found: LauncherStatus | undefined
  try {
    const line = await ask(recordsOf(options, undefined, stay))
    found = line === undefined ? undefined : readStatus(line)
  } catch (thrown) {
    const { message: reason } = thrown as Error
    throw new Unenforceable(refusedBy(profile, { mechanism: 'launcher', reason, wayOut: '' }))
  } finally {
    stay?.close()
  }
  if (found?.event === 'report') return new Sandbox(options, found.kernel, enforcementOf(profile, found))
  if (found === undefined) return new Sandbox(options, undefined, refusedBy(profile, nobodyYet))
  const { mechanism, reason, wayOut } =
    found.event === 'refused' ? found : { ...nothing, reason: 'it ended without a report' }
  throw new Unenforceable(refusedBy(profile, { mechanism, reason, wayOut }))
}

function recordsOf(
  options: SandboxOptions,
  facts: HostFacts | undefined,
  proxy: EgressChild | undefined,
): Buffer {
  return policyRecords({
    ...options,
    proxy,
    broker: facts === undefined || mayBroker(facts),
    watched: options.watch !== undefined,
  })
}

export class Sandbox implements Confinement {
  readonly #options: SandboxOptions
  readonly #facts: HostFacts | undefined
  #report: EnforcementReport
  /** What every start has to keep; undefined before anybody could be asked. */
  #promised: EnforcementReport | undefined

  constructor(options: SandboxOptions, facts: HostFacts | undefined, report: EnforcementReport) {
    this.#options = options
    this.#facts = facts
    this.#report = report
    this.#promised = report.verdict === 'refused' ? undefined : report
  }

  /** Of the last start; before the first, of a trial. */
  get report(): EnforcementReport {
    const { program } = this.#options
    return program === undefined ? this.#report : { ...this.#report, program }
  }

  get hint(): string | undefined {
    const { launcher, elsewhere, profile } = this.#options
    if (profile === undefined || (launcher === undefined && elsewhere === undefined)) return undefined
    if (profile.filesystem.scope === 'all' && profile.network.mode === 'open') return undefined
    return (
      `the permission profile ${profile.name} may not grant what it needs: what it wrote to stderr may tell, ` +
      '`mcp-sidecar doctor` lists what is granted, `mcp-sidecar learn` finds out what it uses'
    )
  }

  launch(command: readonly string[], env: Readonly<Record<string, string>>): Launch {
    const { launcher, elsewhere, profile, admit, onReport, fileGaps, follow } = this.#options
    const launched = launcher !== undefined || elsewhere !== undefined
    if (!launched && profile !== undefined) onReport(this.#report)
    const stay = launched ? admit?.() : undefined
    const policy = launched ? this.#policy(stay) : undefined
    const watch = this.#options.watch?.()
    let reason: string | undefined
    let refused = false
    let pid: number | undefined
    const refuse = (refusal: Refusal): 'end' => {
      refused = true
      reason = `it was not started: ${refusal.mechanism}: ${refusal.reason}; ${refusal.wayOut}`
      this.#report = refusedBy(profile, refusal, this.#facts)
      onReport(this.#report)
      return 'end'
    }
    const status = (line: string): 'serve' | 'end' | undefined => {
      const event = readStatus(line)
      if (event.event === 'refused') return refuse(follow === undefined ? event : withReload(event))
      if (event.event === 'report') {
        pid = event.pid
        const found = enforcementOf(profile, event, fileGaps)
        this.#promised ??= found
        const broken = brokenPromise(this.#promised, found)
        if (broken !== undefined) return refuse(broken)
        this.#report = found
        onReport(found)
        return 'serve'
      }
      // How a server ended that was refused is our own doing.
      if (event.event !== 'exit') watch?.(event)
      else if (!refused) reason = reasonOf(event)
      return undefined
    }
    return {
      command:
        launcher === undefined || elsewhere !== undefined ? command : [launcher, 'exec', '--', ...command],
      env: profile === undefined ? env : confinedEnvironment(profile, env, stay),
      policy,
      status,
      get pid() {
        return pid
      },
      get reason() {
        return reason
      },
      ended: () => stay?.close(),
    }
  }

  #policy(stay: EgressChild | undefined): Buffer {
    try {
      return recordsOf(this.#options, this.#facts, stay)
    } catch (thrown) {
      // Nobody is told of an end where there was no start.
      stay?.close()
      throw thrown
    }
  }
}

/** Links in grants were followed when the configuration was loaded; the launcher cannot know that there were any. */
function withReload({ mechanism, reason, wayOut }: Refusal): Refusal {
  if (mechanism !== 'landlock.fs') return { mechanism, reason, wayOut }
  const reload = 'reload the sidecar if a link was switched'
  return { mechanism, reason, wayOut: wayOut === '' ? reload : `${wayOut}; or ${reload}` }
}

const limits: Readonly<Record<string, string>> = {
  memory: 'it used more memory than its profile allows',
  processes: 'it had more processes than its profile allows',
}

function reasonOf({ code, signal, reason, unclean }: LauncherExit): string {
  const how = signal === undefined ? `it exited with code ${code}` : `it was ended by ${signal}`
  const why = reason === undefined ? how : (limits[reason] ?? `${how}: ${reason}`)
  return unclean ? `${why}; some of its processes are still there` : why
}

/** Points programs that know about proxies and name servers to ours, and what they write to where they may write. */
function confinedEnvironment(
  { filesystem, env: { set } }: Profile,
  env: Readonly<Record<string, string>>,
  stay: EgressChild | undefined,
): Record<string, string> {
  const result = { ...env }
  const [writable] = filesystem.write
  if (writable !== undefined && filesystem.scope === 'granted') {
    // Unless the profile says where.
    if (!Object.hasOwn(set, 'HOME')) result['HOME'] = writable.path
    if (!Object.hasOwn(set, 'TMPDIR')) result['TMPDIR'] = writable.path
  }
  if (stay !== undefined) {
    const url = stay.proxyUrl.reveal()
    for (const name of ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY']) {
      result[name] = url
      result[name.toLowerCase()] = url
    }
    // A server cannot opt out: what it connects to itself comes to the proxy all the same.
    result['NO_PROXY'] = ''
    result['no_proxy'] = ''
    // glibc then asks for names over TCP, which the broker sees.
    result['RES_OPTIONS'] = 'use-vc'
    result['NODE_USE_ENV_PROXY'] = '1'
  }
  return result
}
