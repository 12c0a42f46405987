/** The part of the composition around server processes: what they may touch, and the way out for what they may reach. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Config } from './config/config.ts'
import { builtinProfile, OPEN_NETWORK, profileWith } from './core/profile.ts'
import type { EnforcementReport, Profile } from './core/sandbox.ts'
import type { Clock, Logger, Metrics } from './core/types.ts'
import type { Egress } from './egress/egress.ts'
import { EgressLog } from './observe/egress-log.ts'
import type { Records } from './observe/records.ts'
import { fileFacts, homeFolders } from './sandbox/file-facts.ts'
import { findLauncher } from './sandbox/launcher.ts'
import type { Observed } from './sandbox/observed.ts'
import { isLinkedElsewhere, ownCode } from './sandbox/own-code.ts'
import {
  checkImplied,
  checkPaths,
  followed,
  hiddenPaths,
  ProfileError,
  readonlyPaths,
} from './sandbox/profile.ts'
import { type Program, programOf } from './sandbox/program.ts'
import { baseRead } from './sandbox/records.ts'
import { enforcementSummary } from './sandbox/report.ts'
import { createSandbox, type Sandbox, Unenforceable } from './sandbox/sandbox.ts'
import { tryElsewhere } from './upstream/attached-trial.ts'
import { serverEnvironment } from './upstream/environment.ts'
import type { ServerCommand } from './upstream/process.ts'

export interface ConfinementContext {
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Pick<Metrics, 'egress' | 'egressBytes'>
  readonly records: Pick<Records, 'event'>
  readonly env: Readonly<Record<string, string | undefined>>
  /** Tests have one that sees less of the kernel than there is. */
  readonly launcher?: string | undefined
  /** Servers are watched and not confined: `permissions` opens everything, and the network is watched by the proxy. */
  readonly observed?: Observed | undefined
  /** Ports that no server reaches: the sidecar's own. */
  readonly ownPorts: () => readonly number[]
}

/** Between SIGTERM and the end of a server's whole tree. Milliseconds. */
const graceMs = 3000

/** The one proxy of all server processes, from the first profile that needs it to the end of the sidecar. */
export class WayOut {
  readonly #context: ConfinementContext
  readonly #lines: EgressLog
  #egress: Promise<Egress> | undefined

  constructor(context: ConfinementContext) {
    this.#context = context
    this.#lines = new EgressLog(context)
  }

  /**
   * @param processes that there may be at once, for their shares of the connections
   * @throws the operating system's error; the next call tries again
   */
  async open(processes: number): Promise<Egress> {
    this.#egress ??= this.#start()
    const starting = this.#egress
    try {
      const egress = await starting
      egress.share(processes)
      return egress
    } catch (thrown) {
      if (this.#egress === starting) this.#egress = undefined
      throw thrown
    }
  }

  async close(): Promise<void> {
    // A proxy that could not start has been told of already.
    const egress = await this.#egress?.catch(() => undefined)
    await egress?.close()
    this.#lines.close()
  }

  async #start(): Promise<Egress> {
    const { clock, log, metrics, observed, ownPorts } = this.#context
    // Most starts need none of it.
    const { Egress } = await import('./egress/egress.ts')
    return await Egress.start({
      clock,
      log,
      ownPorts,
      onVerdict: (verdict) => {
        observed?.connected(verdict)
        metrics.egress(verdict.allowed, verdict.protocol)
        this.#lines.note(verdict)
      },
      onEnd: ({ sent, received }) => metrics.egressBytes(sent, received),
    })
  }
}

/**
 * Tries out what the profile of the configuration needs.
 *
 * @throws Unenforceable
 */
export async function buildConfinement(
  config: Config,
  wayOut: WayOut,
  context: ConfinementContext,
): Promise<Sandbox> {
  const { observed } = context
  const { permissions, protectedPaths } =
    observed === undefined ? config : { ...config, permissions: watched(config.permissions) }
  const command = serverCommand(config, context.env)
  const { elsewhere } = command
  const files = fileFacts()
  const launcher = context.launcher ?? findLauncher()
  const program = checkFiles({ ...config, permissions }, context.env, files)
  const allowlist = permissions?.network.mode === 'allowlist'
  // Twice, since after a reload processes of before it go on for a while.
  const egress = allowlist ? await wayOut.open(2 * config.limits.processes) : undefined
  return createSandbox({
    profile: permissions,
    launcher,
    elsewhere: elsewhere && ((policy) => tryElsewhere(policy, command, elsewhere, context.clock)),
    hidden: hiddenPaths(files, protectedPaths),
    // In another container other files stand at these paths; what its launcher runs, that keeps itself.
    readonly: elsewhere === undefined ? readonlyPaths(files, protectedPaths, ownCode(launcher)) : undefined,
    program,
    follow: elsewhere === undefined ? (path) => followed(path, files) : undefined,
    fileGaps:
      elsewhere === undefined && mayWrite(permissions) && isLinkedElsewhere() ? ['own-code-linked'] : [],
    admit:
      egress === undefined || permissions === undefined
        ? undefined
        : () =>
            egress.admit(observed === undefined ? permissions.network : OPEN_NETWORK, {
              name: permissions.name,
            }),
    watch: observed && (() => observed.start()),
    graceMs,
    requireContainerSeccomp: insideContainer(context.env),
    onReport: (report) => note(report, context),
  })
}

/**
 * Holds the paths of a profile against this host's disk; those of a server in another container only its launcher can see.
 *
 * @param around the sidecar's own environment
 * @returns what the profile gives of the server's own program; undefined for a server in another container
 * @throws ProfileError for paths that are not there, or that open what belongs to the sidecar, and for a program that could
 * not be read
 */
export function checkFiles(
  config: Config,
  around: ConfinementContext['env'],
  files = fileFacts(),
): readonly string[] | undefined {
  const { permissions, protectedPaths, server } = config
  if (permissions === undefined || server.socket !== undefined) return undefined
  const readonly = readonlyPaths(files, protectedPaths, ownCode(findLauncher()))
  const program = programIn(config, permissions, around, files)
  const implied = [...baseRead.execute, ...baseRead.data]
  const faults = [
    ...checkPaths(permissions, files, protectedPaths, readonly),
    ...checkImplied(permissions, implied, files, protectedPaths),
    ...program.problems,
  ]
  if (faults.length > 0) throw new ProfileError(faults)
  return program.grants
}

function mayWrite(permissions: Profile | undefined): boolean {
  const { scope, write = [] } = permissions?.filesystem ?? {}
  return scope === 'all' || write.length > 0
}

function programIn(
  config: Config,
  permissions: Profile,
  around: ConfinementContext['env'],
  files: ReturnType<typeof fileFacts>,
): Program {
  const { command, cwd, env } = serverCommand(config, around)
  return programOf(command, permissions, {
    ...{ files, protectedPaths: config.protectedPaths, homes: homeFolders(around['HOME']) },
    ...{ uid: process.getuid?.(), path: env['PATH'], cwd: resolve(cwd ?? '.') },
  })
}

/**
 * What the paths of a configuration lead to now, to be compared: links are followed when a sandbox is built, and another
 * one is needed once they lead elsewhere. Empty where there is nothing to follow.
 *
 * @param around the sidecar's own environment
 */
export function resolvedPaths(config: Config, around: ConfinementContext['env']): readonly string[] {
  const { permissions, protectedPaths, server } = config
  if (permissions === undefined || server.socket !== undefined) return []
  const { scope, read, write } = permissions.filesystem
  const files = fileFacts()
  const own = [
    ...hiddenPaths(files, protectedPaths),
    ...readonlyPaths(files, protectedPaths, ownCode(findLauncher())),
  ]
  if (scope === 'all') return own
  const granted = [...read, ...write].map(({ path }) => path)
  const all = [...baseRead.execute, ...baseRead.data, ...granted].map((path) => followed(path, files))
  return [...own, ...all, ...programIn(config, permissions, around, files).grants]
}

/** Everything is open but what belongs to the sidecar; connections go through the proxy, where they are seen. */
function watched(permissions: Profile | undefined): Profile {
  const { filesystem, env, limits } = permissions ?? (builtinProfile('full-access') as Profile)
  const network = { ...OPEN_NETWORK, mode: 'allowlist', hosts: [{ kind: 'any' }] } as const
  return profileWith('learn', {
    ...{ filesystem, env, limits, network },
    allowDegraded: ['container-seccomp-off'],
  })
}

/**
 * What is started, with its whole environment. A server in another container has that of its image and its container; what
 * is around the sidecar, such as its PATH, means nothing there.
 *
 * @param around the sidecar's own environment
 */
export function serverCommand(
  { server, permissions }: Config,
  around: ConfinementContext['env'],
): Omit<ServerCommand, 'confinement'> {
  const { command, cwd, socket, envAllow, envSet, startTimeoutMs } = server
  const { allow = [], set = {} } = permissions?.env ?? {}
  const pass = [...new Set([...envAllow, ...allow])]
  const own = { ...envSet, ...set }
  if (socket === undefined) return { command, cwd, env: serverEnvironment(around, pass, own) }
  return { command, cwd, env: own, elsewhere: { path: socket, pass, waitMs: startTimeoutMs } }
}

/**
 * What would hold for a server of this configuration on this host, from trying it out; without a profile, what would
 * hold under `network`, which needs every mechanism. Nothing is started.
 */
export async function examine(config: Config, context: ConfinementContext): Promise<EnforcementReport> {
  const permissions = config.permissions ?? builtinProfile('network')
  const wayOut = new WayOut(context)
  try {
    return (await buildConfinement({ ...config, permissions }, wayOut, context)).report
  } catch (thrown) {
    if (thrown instanceof Unenforceable) return thrown.report
    throw thrown
  } finally {
    await wayOut.close()
  }
}

/**
 * Kubernetes starts containers without a filter unless it is told otherwise, so that nobody may have decided it. Docker
 * has to be told to leave it out; that is reported, not refused.
 */
function insideContainer(env: ConfinementContext['env']): boolean {
  return env['KUBERNETES_SERVICE_HOST'] !== undefined || existsSync('/run/.containerenv')
}

function note(report: EnforcementReport, { log, records }: ConfinementContext): void {
  const { verdict, profile } = report
  const { active, gaps, ...summary } = enforcementSummary(report)
  const details = { ...summary, active: active.join(' '), gaps: gaps.join(' ') }
  log[verdict === 'refused' ? 'error' : 'debug'](details, 'permissions of the server process')
  if (profile !== undefined || verdict === 'refused')
    records.event('sandbox_report', details, verdict === 'refused' ? 'error' : 'success')
}
