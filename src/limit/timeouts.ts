import { anyGlob } from '../core/glob.ts'
import type { Operation } from '../core/operation.ts'
import type { TimeoutRule } from '../core/policy.ts'
import type { Deadline } from '../core/types.ts'
import { LimitError, longestMs } from './charge.ts'

export type Times = Pick<Deadline, 'timeoutMs' | 'maxMs'>

/** The times of a request that differ from those of all; undefined where none do. */
export type Timeouts = (method: string, operation: Operation) => Times | undefined

interface Compiled extends Times {
  readonly ofMethod: (method: string) => boolean
  readonly ofTool: ((name: string) => boolean) | undefined
}

/**
 * The first rule that fits counts. A rule that names tools fits their tools/call alone, whatever its methods.
 *
 * @throws LimitError for times that are none, and for a rule that nothing can fit
 */
export function timeouts(rules: readonly TimeoutRule[]): Timeouts {
  const compiled = rules.map(compile)
  return (method, operation) =>
    compiled.find(
      ({ ofMethod, ofTool }) => ofMethod(method) && (ofTool === undefined || usesTool(operation, ofTool)),
    )
}

function usesTool({ action, targets }: Operation, ofTool: (name: string) => boolean): boolean {
  return action === 'tools/call' && ofTool(targets[0]?.name ?? '')
}

function compile({ methods, tools, timeoutMs, maxMs }: TimeoutRule, index: number): Compiled {
  const wrong = (what: string): LimitError => new LimitError(`timeout rule ${index + 1}: ${what}`)
  for (const ms of [timeoutMs, maxMs]) {
    if (!(ms >= 1 && ms <= longestMs))
      throw wrong(`${ms} ms is no timeout; it must be from 1 ms to 24.8 days (${longestMs} ms)`)
  }
  if (maxMs < timeoutMs)
    throw wrong(`the most it may take in all (${maxMs} ms) is less than its timeout (${timeoutMs} ms)`)
  const ofMethod = anyGlob(methods.length === 0 ? ['tools/call'] : methods)
  if (tools.length > 0 && !ofMethod('tools/call'))
    throw wrong('it names tools, and none of its methods is tools/call; nothing could fit')
  return { timeoutMs, maxMs, ofMethod, ofTool: tools.length === 0 ? undefined : anyGlob(tools) }
}
