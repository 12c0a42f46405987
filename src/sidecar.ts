/** What the composition takes and what it gives. */
import type { Config } from './config/config.ts'
import type { EnforcementReport } from './core/sandbox.ts'
import type { Clock } from './core/types.ts'
import type { SidecarLogger } from './observe/logger.ts'
import type { Observed } from './sandbox/observed.ts'

export interface SidecarContext {
  /** What the server's environment is filtered from. */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly log: SidecarLogger
  /** The sidecar's own version. */
  readonly version: string
  readonly clock?: Clock
  /** Servers are watched instead of confined; what they do is put in here. */
  readonly observed?: Observed
  /** Instead of the launcher that was built: one that sees less of the kernel, for tests. */
  readonly launcher?: string
}

export interface Sidecar {
  /** Where clients connect: the Streamable HTTP endpoint. */
  readonly url: string
  readonly adminUrl: string
  readonly config: Config
  /** The server answers and no shutdown is under way. */
  readonly ready: boolean
  /** What holds for the server process started last. */
  readonly enforcement: EnforcementReport
  /** Builds the new world beside the old one and swaps. Rejects with a StartError; then nothing has changed. */
  reload(config: Config): Promise<void>
  /** Opens the audit log anew: whoever rotates it has renamed the file. */
  reopenAudit(): void
  /** Answers what is in flight within the grace, refuses new requests, ends sessions and server processes. */
  stop(): Promise<void>
}
