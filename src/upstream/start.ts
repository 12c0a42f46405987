import { AttachedProcess } from './attached.ts'
import { type ProcessContext, type ServerCommand, type ServerProcess, SpawnedProcess } from './process.ts'

/**
 * Starts a server process where it belongs: here, or in the container of the launcher that listens.
 *
 * @param onEnd calls once when it can no longer serve: it exited, closed stdout or never started
 */
export function startProcess(
  what: ServerCommand,
  context: ProcessContext,
  onEnd: (reason: string) => void,
): ServerProcess {
  if (what.elsewhere === undefined) return new SpawnedProcess(what, context, onEnd)
  return new AttachedProcess(what, what.elsewhere, context, onEnd)
}
