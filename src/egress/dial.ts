import { connect, isIP, type Socket } from 'node:net'
import type { Clock } from '../core/types.ts'
import type { Ending } from './ending.ts'

/** Opens a connection to an address; never to a name. */
export type Dial = (address: string, port: number) => Socket

export const dialTcp: Dial = (address, port) => {
  if (isIP(address) === 0) throw new Error('only addresses are dialled')
  return connect({ host: address, port, noDelay: true, keepAlive: true, allowHalfOpen: true })
}

export class DialError extends Error {
  override readonly name = 'DialError'
  readonly timedOut: boolean

  constructor(text: string, timedOut: boolean) {
    super(text)
    this.timedOut = timedOut
  }
}

/** More addresses of one name are not tried. */
const mostAddresses = 4
/** For an address that is not the last. Milliseconds. */
const attemptMs = 3000

export interface Dialled {
  /** Paused, and connected. */
  readonly socket: Socket
  readonly address: string
}

/**
 * Dials one address after the other until one answers.
 *
 * @param timeoutMs for all together
 * @throws DialError with the code of the last failure
 */
export async function dialFirst(
  addresses: readonly string[],
  port: number,
  { dial, clock, timeoutMs, gone }: { dial: Dial; clock: Clock; timeoutMs: number; gone: Ending },
): Promise<Dialled> {
  const end = clock.now() + timeoutMs
  const tried = addresses.slice(0, mostAddresses)
  let failure: unknown
  for (const [i, address] of tried.entries()) {
    const left = end - clock.now()
    if (left <= 0 || gone.over) break
    try {
      const socket = await dialOne(
        dial(address, port),
        clock,
        i < tried.length - 1 ? Math.min(left, attemptMs) : left,
        gone,
      )
      return { socket, address }
    } catch (cause) {
      failure = cause
    }
  }
  throw failure ?? new DialError('no time is left to dial', true)
}

function dialOne(socket: Socket, clock: Clock, ms: number, gone: Ending): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const settle = (error?: DialError): void => {
      timer.cancel()
      gone.off(onGone)
      socket.off('connect', onConnect)
      if (error === undefined) {
        socket.off('error', onError)
        // Whoever relays it hears of its end by the close that follows.
        socket.on('error', () => {})
        socket.pause()
        resolve(socket)
        return
      }
      socket.on('error', () => {})
      socket.destroy()
      reject(error)
    }
    const onConnect = (): void => settle()
    const onError = (cause: NodeJS.ErrnoException): void =>
      settle(new DialError(cause.code ?? cause.message, cause.code === 'ETIMEDOUT'))
    const onGone = (): void => settle(new DialError('nobody waits for it any more', false))
    const timer = clock.after(ms, () => settle(new DialError('no answer in time', true)))
    socket.on('connect', onConnect)
    socket.on('error', onError)
    gone.on(onGone)
  })
}
