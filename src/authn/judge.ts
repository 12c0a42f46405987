import { SidecarError } from '../core/errors.ts'
import type { Identity, Trusted } from '../core/types.ts'
import type { RequestAttempt } from './attempt.ts'
import type { Authenticator } from './authenticator.ts'
import { presents } from './credentials.ts'
import type { AuthGate, GateLayer } from './gate.ts'

/** What was proven, or why it was not. */
export type Finding = Identity | SidecarError

type Soon<T> = T | Promise<T>

/** A layer that the request brings nothing for, as what its refusal says in the log; undefined when there is none. */
export function missing({ layers }: AuthGate, request: Trusted): string | undefined {
  for (const { name, require, authenticators } of layers) {
    const absent = authenticators.filter((each) => !presents(request, each))
    if (absent.length === 0 || (require === 'any' && absent.length < authenticators.length)) continue
    return `${name}: no credential for ${absent.map((each) => each.name).join(require === 'any' ? ' or ' : ', ')}`
  }
  return undefined
}

/**
 * Has every layer judge the request. None is left out because another has refused, neither are methods of a layer that
 * requires all: how long a refusal takes must not tell which of several credentials was right.
 *
 * @returns at once when all methods answer at once; never rejects
 */
export function judge({ layers }: AuthGate, request: Trusted, attempt: RequestAttempt): Soon<Finding[]> {
  const [only] = layers
  if (layers.length === 1 && only !== undefined) return judgeLayer(only, request, attempt)
  const found = layers.map((layer) => judgeLayer(layer, request, attempt))
  if (!found.some((each) => each instanceof Promise)) return (found as Finding[][]).flat()
  return Promise.all(found).then((all) => all.flat())
}

function judgeLayer(layer: GateLayer, request: Trusted, attempt: RequestAttempt): Soon<Finding[]> {
  if (layer.require === 'any') return first(layer, request, attempt, 0)
  const found = layer.authenticators.map((each) => ask(each, request, attempt))
  const recognised = (all: readonly (Finding | undefined)[]): Finding[] =>
    all.map((each, i) => each ?? unrecognised(`${layer.name}, ${layer.authenticators[i]?.name}`))
  if (!found.some((each) => each instanceof Promise)) return recognised(found as (Finding | undefined)[])
  return Promise.all(found).then(recognised)
}

/** The first method that recognises its credential, or refuses it. */
function first(layer: GateLayer, request: Trusted, attempt: RequestAttempt, from: number): Soon<Finding[]> {
  const { authenticators } = layer
  for (let i = from; i < authenticators.length; i++) {
    const found = ask(authenticators[i] as Authenticator, request, attempt)
    if (found instanceof Promise) {
      return found.then((known) =>
        known === undefined && !attempt.expired
          ? first(layer, request, attempt, i + 1)
          : [known ?? unrecognised(layer.name)],
      )
    }
    if (found !== undefined) return [found]
  }
  return [unrecognised(layer.name)]
}

function ask(method: Authenticator, request: Trusted, attempt: RequestAttempt): Soon<Finding | undefined> {
  try {
    const answer = method.authenticate(request, attempt)
    if (!(answer instanceof Promise)) return answer
    return attempt.waitFor(method.name, answer).catch((thrown: unknown) => SidecarError.from(thrown))
  } catch (thrown) {
    return SidecarError.from(thrown)
  }
}

function unrecognised(where: string): SidecarError {
  return new SidecarError('ERR_AUTH_INVALID', { detail: `${where}: nobody recognised the credential` })
}
