import { SidecarError } from '../core/errors.ts'
import { type Member, members, removal } from '../core/json.ts'
import type { Message } from '../core/jsonrpc.ts'
import type { Operation } from '../core/operation.ts'
import type { AuthzPolicy } from '../core/policy.ts'
import type { Decoded } from '../core/types.ts'
import { folded, settled } from './answer.ts'

type Switches = NonNullable<AuthzPolicy['capabilities']>

/** Serves and advertises the capabilities that are switched on; other ones than tools, resources and prompts always. */
export interface CapabilityGuard {
  /**
   * @throws ERR_UNSUPPORTED (legacy), ERR_METHOD_UNKNOWN (modern) for a method of a capability that is off, as for a
   *   method that does not exist; ERR_PARAMS where another method names an object of it
   */
  permit(request: Decoded, operation: Operation): void
  /** Takes what is off out of the wishes of `subscriptions/listen`: it is neither honoured nor delivered. */
  readonly listening: (request: Message) => Message
  /** Takes what is off out of the result of `initialize` or `server/discover`. */
  readonly advertise: (answer: Message) => Message
}

/** What a client may listen for, in the folded spelling, by capability (2026-07-28, basic/patterns/subscriptions). */
const wishes: Readonly<Record<string, string>> = {
  toolslistchanged: 'tools',
  promptslistchanged: 'prompts',
  resourceslistchanged: 'resources',
  resourcesubscriptions: 'resources',
}

export function compileCapabilities(on: Switches): CapabilityGuard {
  const off = new Set((['tools', 'resources', 'prompts'] as const).filter((name) => !on[name]) as string[])
  // Completions are for arguments of prompts and of resource templates.
  if (!on.resources && !on.prompts) off.add('completions')
  return {
    permit({ message, era }, { targets }) {
      if (message.kind !== 'request') return
      const { method } = message
      const prefix = method.slice(0, Math.max(0, method.indexOf('/')))
      if (off.has(prefix === 'completion' ? 'completions' : prefix)) {
        const detail = `${method}: this capability is switched off`
        throw new SidecarError(era === 'modern' ? 'ERR_METHOD_UNKNOWN' : 'ERR_UNSUPPORTED', { detail })
      }
      const hidden = targets.find(({ type }) => off.has(`${type}s`))
      if (hidden === undefined) return
      throw new SidecarError('ERR_PARAMS', {
        detail: `${method} names a ${hidden.type}, and this capability is switched off`,
      })
    },
    listening(request) {
      const { bytes, kind, method, paramSpans } = request
      if (kind !== 'request' || method !== 'subscriptions/listen' || paramSpans.notifications === undefined)
        return request
      const isOff = ({ key }: Member): boolean => off.has(wishes[folded(key)] ?? '')
      // Read anew: who serves it goes by where the wishes stand.
      return settled(request.edited(...removal(members(bytes, paramSpans.notifications), isOff)))
    },
    advertise(answer) {
      const message = settled(answer)
      if (message.result === undefined) return message
      const { bytes } = message
      const edits = members(bytes, message.result)
        // Each of them, should it stand twice: nobody knows which one a client believes.
        .filter(({ key }) => folded(key) === 'capabilities')
        .flatMap(({ value }) => removal(members(bytes, value), ({ key }) => off.has(folded(key))))
      return message.edited(...edits)
    },
  }
}
