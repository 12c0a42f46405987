import { SidecarError } from '../core/errors.ts'
import type { Operation } from '../core/operation.ts'
import type { Verdict } from '../core/types.ts'
import { quoted } from './fault.ts'

/** The only tools there are. */
export interface ToolsFilter {
  has(tool: string): boolean
  /** @throws ERR_TOOL_UNKNOWN for every other name, whether the server has such a tool or not */
  permit(operation: Operation): Verdict
}

const passed: Verdict = Object.freeze({ layer: 'tools-filter', ids: Object.freeze([]) })

/** @param filters exact names; a tool must be in each of them */
export function compileToolsFilter(filters: readonly (readonly string[])[]): ToolsFilter {
  const [first = [], ...others] = filters.map((names) => new Set(names))
  const names = new Set([...first].filter((name) => others.every((other) => other.has(name))))
  return {
    has: (tool) => names.has(tool),
    permit(operation) {
      if (operation.action !== 'tools/call') return passed
      const name = operation.targets[0]?.name
      if (name !== undefined && names.has(name)) return passed
      throw new SidecarError('ERR_TOOL_UNKNOWN', {
        detail:
          name === undefined ? 'the call names no tool' : `the tools filter does not have ${quoted(name)}`,
        verdict: passed,
      })
    },
  }
}
