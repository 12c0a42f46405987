import type { Socket } from 'node:net'

export interface Relayed {
  /** Bytes from the first socket. */
  readonly sent: number
  /** Bytes from the second one. */
  readonly received: number
}

/**
 * Passes bytes both ways until both sides have closed. One half may end before the other; a reset on one side is one on the
 * other, so that what was cut off does not look complete. Reads no faster than the other side takes.
 *
 * @param head what the first socket has already sent
 * @param touch called whenever bytes pass
 */
export function relay(a: Socket, b: Socket, head: Buffer, touch: () => void): Promise<Relayed> {
  return new Promise((resolve) => {
    const bytes = { sent: head.length, received: 0 }
    let open = 2
    const pump = (from: Socket, to: Socket, direction: 'sent' | 'received'): void => {
      from.on('data', (chunk: Buffer) => {
        bytes[direction] += chunk.length
        touch()
        if (!to.write(chunk)) from.pause()
      })
      to.on('drain', () => {
        touch()
        from.resume()
      })
      const end = (): void => void to.end()
      if (from.readableEnded) end()
      else from.on('end', end)
      const close = (): void => {
        if (!from.readableEnded || !from.writableFinished) to.resetAndDestroy()
        if (--open === 0) resolve(bytes)
      }
      if (from.destroyed) close()
      else from.on('close', close)
    }
    pump(a, b, 'sent')
    pump(b, a, 'received')
    if (head.length > 0 && !b.write(head)) a.pause()
    else a.resume()
    b.resume()
  })
}
