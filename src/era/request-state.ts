/** What a requestState holds while a client keeps it for us, and the rules by which it is accepted back. */
import { createHash } from 'node:crypto'
import { SidecarError } from '../core/errors.ts'
import { canonical } from '../core/json.ts'
import type { Message } from '../core/jsonrpc.ts'

interface Bound {
  /** Id of the principal that was asked. */
  readonly principal: string
  /** Of the request that was asked about, see {@link requestDigest}. */
  readonly digest: string
  /** Milliseconds since 1970. */
  readonly expires: number
}

/** A call that waits in a legacy server for its answers. */
export interface ParkedState extends Bound {
  readonly kind: 'parked'
  readonly call: string
  readonly round: number
}

/** A call that a legacy server ended because of something the user must do first (-32042). */
export interface ReissueState extends Bound {
  readonly kind: 'reissue'
  /** Different for each. */
  readonly nonce: string
  readonly round: number
  /** The process that remembers what was asked for. */
  readonly instance: string
  /** What the user has to do: keys and input requests as JSON text. */
  readonly questions: readonly { readonly key: string; readonly text: string }[]
}

/** A modern server's own requestState. */
export interface WrappedState extends Bound {
  readonly kind: 'wrapped'
  /** JSON text, as the server wrote it. */
  readonly state: string
}

export type RequestState = ParkedState | ReissueState | WrappedState

const kinds = ['parked', 'reissue', 'wrapped']

/** What a retry must repeat: method and params, apart from what belongs to the round. */
export function requestDigest(message: Message): string {
  const params =
    message.params === undefined
      ? ''
      : canonical(
          message.bytes,
          message.params,
          (key) => key === '_meta' || key === 'inputResponses' || key === 'requestState',
        )
  return createHash('sha256').update(`${message.method}\0${params}`).digest('base64url')
}

/**
 * One refusal for whatever is wrong, so that nobody learns how close they came.
 *
 * @param opened what the seal held
 * @param message the retry that brought it
 * @throws ERR_REQUEST_STATE
 */
export function acceptState(
  opened: unknown,
  message: Message,
  principal: string,
  epoch: number,
): RequestState {
  const state = opened as RequestState | undefined
  const detail =
    state === undefined || !kinds.includes(state.kind)
      ? 'forged or of another key'
      : state.principal !== principal
        ? 'of another principal'
        : state.expires <= epoch
          ? 'expired'
          : state.digest !== requestDigest(message)
            ? 'of another request'
            : undefined
  if (state === undefined || detail !== undefined) throw refusedState(detail ?? '')
  return state
}

export function refusedState(detail: string): SidecarError {
  return new SidecarError('ERR_REQUEST_STATE', { detail: `requestState ${detail}` })
}
