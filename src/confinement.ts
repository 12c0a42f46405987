/** The part of the composition around server processes: what they may touch, and the way out for what they may reach. */
import { existsSync } from 'node:fs'
import type { Config } from './config/config.ts'
import { builtinProfile } from './core/profile.ts'
import type { EgressVerdict, EnforcementReport } from './core/sandbox.ts'
import { Throttle } from './core/throttle.ts'
import type { Clock, Logger, Metrics } from './core/types.ts'
import { Egress } from './egress/egress.ts'
import type { Records } from './observe/records.ts'
import { findLauncher } from './sandbox/launcher.ts'
import { enforcementSummary } from './sandbox/report.ts'
import { createSandbox, type Sandbox, Unenforceable } from './sandbox/sandbox.ts'

export interface ConfinementContext {
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Pick<Metrics, 'egress'>
  readonly records: Pick<Records, 'event'>
  readonly env: Readonly<Record<string, string | undefined>>
  /** Tests have one that sees less of the kernel than there is. */
  readonly launcher?: string | undefined
  /** Ports that no server reaches: the sidecar's own. */
  readonly ownPorts: () => readonly number[]
}

/** Between SIGTERM and the end of a server's whole tree. Milliseconds. */
const graceMs = 3000
/** Lines about connections in the log and the audit log; a server may try as often as it likes. */
const linesPerSecond = 20

/** The one proxy of all server processes, from the first profile that needs it to the end of the sidecar. */
export class WayOut {
  readonly #context: ConfinementContext
  readonly #lines = new Throttle(linesPerSecond)
  #egress: Promise<Egress> | undefined

  constructor(context: ConfinementContext) {
    this.#context = context
  }

  open(): Promise<Egress> {
    const { clock, log, ownPorts } = this.#context
    this.#egress ??= Egress.start({ clock, log, ownPorts, onVerdict: (verdict) => this.#note(verdict) })
    return this.#egress
  }

  async close(): Promise<void> {
    await (await this.#egress)?.close()
  }

  #note({ child, allowed, protocol, host, port, rule, address, reason }: EgressVerdict): void {
    const { clock, log, metrics, records } = this.#context
    metrics.egress(allowed, protocol)
    const suppressed = this.#lines.take(clock.now())
    if (suppressed === false) return
    const seen = suppressed === 0 ? {} : { suppressed }
    const details = { profile: child, protocol, host, port, rule, address, reason, ...seen }
    if (allowed) log.debug(details, 'the server connected')
    else log.warn(details, 'the server was kept from connecting')
    records.event('egress', { allowed, ...details }, allowed ? 'success' : 'error')
  }
}

/**
 * Tries out what the profile of the configuration needs.
 *
 * @throws Unenforceable
 */
export async function buildConfinement(
  { permissions, protectedPaths }: Config,
  wayOut: WayOut,
  context: ConfinementContext,
): Promise<Sandbox> {
  const allowlist = permissions?.network.mode === 'allowlist'
  const egress = allowlist ? await wayOut.open() : undefined
  return createSandbox({
    profile: permissions,
    launcher: context.launcher ?? findLauncher(),
    hidden: protectedPaths,
    admit:
      egress === undefined || permissions === undefined
        ? undefined
        : () => egress.admit(permissions.network, { name: permissions.name }),
    graceMs,
    requireContainerSeccomp: insideContainer(context.env),
    onReport: (report) => note(report, context),
  })
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
