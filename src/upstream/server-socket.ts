/** The socket of a launcher in another container: who may have put it there, and the way in. */
import { lstatSync, type Stats } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Clock, Logger, Timer } from '../core/types.ts'
import type { ServerSocket } from './process.ts'

/** Between attempts while nobody listens. Milliseconds. */
const retryMs = 100
/** When whoever waits is told of. Milliseconds. */
const tellMs = 1000

/** Nobody listens; its container may not have started yet. */
export class NobodyListens extends Error {
  override readonly name = 'NobodyListens'
}

/**
 * Whoever could put a socket of his own into its place would be sent what clients say.
 *
 * @throws NobodyListens when there is none; Error when it is not to be trusted
 */
export function checkSocket(path: string): void {
  const found = statusOf(path)
  if (found === undefined) throw new NobodyListens(`there is no socket ${path}`)
  if (!found.isSocket()) throw new Error(`${path} is not a socket`)
  const { uid, gid, mode } = found
  if ((mode & 0o002) !== 0)
    throw new Error(`everybody may write to the socket ${path}: its mode must be 0660 or less`)
  if (!isOurs(uid, gid))
    throw new Error(
      `the socket ${path} belongs to user ${uid} and group ${gid}, which are not ours: run both containers as one user, or with one fsGroup`,
    )
  const folder = dirname(path)
  const { mode: folderMode = 0 } = statusOf(folder) ?? {}
  if ((folderMode & 0o002) !== 0 && (folderMode & 0o1000) === 0)
    throw new Error(
      `everybody may replace the socket ${path}: make a folder for it that only user and group may write to (mode 0770)`,
    )
}

function isOurs(uid: number, gid: number): boolean {
  if (uid === 0 || uid === process.geteuid?.()) return true
  return gid === process.getegid?.() || process.getgroups?.().includes(gid) === true
}

function statusOf(path: string): Stats | undefined {
  try {
    return lstatSync(path)
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw new Error(`the socket ${path} cannot be looked at: ${code}`, { cause: thrown })
  }
}

/** One attempt. Rejects with a NobodyListens, or an Error that says what is wrong. */
export function reachOnce(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    checkSocket(path)
    const socket = connect(path)
    const failed = ({ code, message }: NodeJS.ErrnoException): void => {
      // EAGAIN: more are waiting to be let in than it has room for.
      if (code === 'ECONNREFUSED' || code === 'ENOENT' || code === 'EAGAIN')
        reject(new NobodyListens(`nobody listens on the socket ${path}`))
      else if (code === 'EACCES')
        reject(
          new Error(`this user may not write to the socket ${path}: give both containers the same fsGroup`),
        )
      else reject(new Error(`the socket ${path} cannot be connected to: ${message}`))
    }
    socket.once('error', failed)
    socket.once('connect', () => {
      socket.off('error', failed)
      resolve(socket)
    })
  })
}

export interface Reaching {
  /** Rejects with an Error for the log. */
  readonly connected: Promise<Socket>
  /** Gives up; what connects then is closed. */
  cancel(): void
}

/** Attempts until somebody listens, or `waitMs` have passed. */
export function reach(
  { path, waitMs }: ServerSocket,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
): Reaching {
  const start = clock.now()
  let cancelled = false
  let told = false
  let timer: Timer | undefined
  let giveUp: (reason: Error) => void = () => {}
  const connected = new Promise<Socket>((resolve, reject) => {
    giveUp = reject
    const attempt = (): void => {
      reachOnce(path).then(
        (socket) => {
          if (cancelled) socket.destroy()
          else resolve(socket)
        },
        (error: Error) => {
          if (cancelled) return
          const waitedMs = clock.now() - start
          if (!(error instanceof NobodyListens)) reject(error)
          else if (waitedMs >= waitMs)
            reject(new Error(`${error.message}, for ${waitMs} ms: does the container of the server run?`))
          else {
            if (!told && waitedMs >= tellMs)
              log.info({ socket: path }, 'waiting for the launcher of the server')
            told ||= waitedMs >= tellMs
            timer = clock.after(Math.min(retryMs, waitMs - waitedMs), attempt)
          }
        },
      )
    }
    attempt()
  })
  return {
    connected,
    cancel: () => {
      cancelled = true
      timer?.cancel()
      giveUp(new Error('it was stopped'))
    },
  }
}
