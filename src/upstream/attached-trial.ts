import type { Clock } from '../core/types.ts'
import { FrameReader, maxPayloadBytes } from './frames.ts'
import { instructions } from './instructions.ts'
import type { ServerCommand, ServerSocket } from './process.ts'
import { NobodyListens, reachOnce } from './server-socket.ts'

/** A launcher answers within milliseconds; a machine under load is given this long. Milliseconds. */
const answerMs = 10_000

/**
 * Has the launcher in another container set everything up as for a server, without running it.
 *
 * @returns what it reports, one JSON object; undefined when nobody listens (yet)
 * @throws Error that says what is wrong
 */
export async function tryElsewhere(
  policy: Buffer,
  what: Pick<ServerCommand, 'command' | 'cwd' | 'env'>,
  to: ServerSocket,
  clock: Clock,
): Promise<string | undefined> {
  const orders = instructions({ policy, env: what.env }, what, to, true)
  let socket: Awaited<ReturnType<typeof reachOnce>>
  try {
    socket = await reachOnce(to.path)
  } catch (thrown) {
    if (thrown instanceof NobodyListens) return undefined
    throw thrown
  }
  const frames = new FrameReader()
  let silent = false
  const timer = clock.after(answerMs, () => {
    silent = true
    socket.destroy()
  })
  try {
    return await new Promise((resolve, reject) => {
      let said = ''
      socket.on('data', (chunk: Buffer) => {
        try {
          frames.push(chunk, (type, bytes) => {
            if (type === 'R') resolve(bytes.toString())
            if (type === 'E' && said.length < maxPayloadBytes) said += bytes.toString()
          })
        } catch (thrown) {
          const { message } = thrown as Error
          reject(new Error(`the launcher at ${to.path} does not keep to the protocol: ${message}`))
        }
      })
      // That it was cut shows as an error when something was not read.
      socket.on('error', () => {})
      socket.once('close', () => {
        if (silent) reject(new Error(`the launcher at ${to.path} does not answer`))
        const [line = ''] = said.trim().split('\n')
        const hint =
          line === ''
            ? '; its own output says why (it lets in one user, from another container, and so many connections)'
            : `: ${line}`
        reject(new Error(`the launcher at ${to.path} closed the connection without a report${hint}`))
      })
      socket.write(orders)
    })
  } finally {
    timer.cancel()
    socket.destroy()
  }
}
