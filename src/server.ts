/** The part of the composition behind the sessions: the MCP server, made to look right to clients of both eras. */

import { ModernBehindSessions } from './bridge/legacy-over-modern.ts'
import { LegacyBehindModern } from './bridge/modern-over-legacy.ts'
import { ModernRelay } from './bridge/modern-relay.ts'
import { type Faces, ServerBehind } from './bridge/server.ts'
import { TaskOwners } from './bridge/task-owners.ts'
import type { Config } from './config/config.ts'
import type { Seal } from './core/types.ts'
import { LegacyGroups } from './upstream/groups.ts'
import { ModernPool } from './upstream/modern-pool.ts'
import { PerSessionPool } from './upstream/per-session.ts'
import type { PoolOptions } from './upstream/pool.ts'
import { type ProbeResult, probe } from './upstream/probe.ts'
import type { ProcessContext, ServerCommand } from './upstream/process.ts'
import { SharedPool } from './upstream/shared.ts'

export type Server = ServerBehind<ProbeResult>

export interface ServerContext extends ProcessContext {
  readonly seal: Seal
  /** The sidecar's own version. */
  readonly version: string
  /** Calls when the tools of the server may have changed: for one principal, or for all. */
  readonly onToolsChanged: (principalId: string | undefined) => void
  /** At the limit of processes: ends an unused session of this principal, if there is one. */
  readonly giveUpSession: (principalId: string) => boolean
}

/** @param command with the whole environment of the server */
export function buildServer(config: Config, command: ServerCommand, context: ServerContext): Server {
  const { server, limits } = config
  const options: PoolOptions & { readonly idleMs: number } = {
    command,
    maxProcesses: limits.processes,
    warmSpares: server.warmSpares,
    startTimeoutMs: server.startTimeoutMs,
    maxMessageBytes: limits.serverMessageBytes,
    version: context.version,
    onToolsChanged: context.onToolsChanged,
    idleMs: limits.idleSessionMs,
  }
  const shared = server.topology === 'shared'
  const legacyContext = { ...context, inputMs: limits.clientInputMs }

  const sharedLegacy = (): Faces => {
    const pool = new SharedPool(options, context)
    const stateless = new LegacyBehindModern(pool, legacyContext)
    return { era: 'legacy', pool, stateless, life: pool, parked: () => stateless.parked }
  }

  const legacy = (): Faces => {
    const maxPerPrincipal = limits.processesPerPrincipal
    const pool = new PerSessionPool({ ...options, maxPerPrincipal }, context)
    const { poolSize } = server
    const { giveUpSession } = context
    const groupOptions = { ...options, poolSize, maxPerPrincipal, giveUpSession, habits: { asks: false } }
    const groups = new LegacyGroups(pool, groupOptions, context)
    pool.guest = groups
    const stateless = new LegacyBehindModern(groups, legacyContext)
    return { era: 'legacy', pool, stateless, life: pool, parked: () => stateless.parked }
  }

  const modern = (found: Found | undefined, onLegacy: (reason: string) => void): Faces => {
    const perPrincipal = server.topology === 'per-session'
    const processes = new ModernPool({ ...options, perPrincipal, onLegacy }, context, found)
    const pool = new ModernBehindSessions(processes, context)
    const stateless = new ModernRelay(processes, { ...context, tasks: new TaskOwners() })
    return { era: 'modern', pool, stateless, life: processes }
  }

  return new ServerBehind(
    server.era,
    !shared,
    {
      probe: () => probe(command, context, options),
      legacy: shared ? sharedLegacy : legacy,
      modern,
    },
    context,
  )
}

type Found = Extract<ProbeResult, { era: 'modern' }>
