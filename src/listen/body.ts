import { SidecarError } from '../core/errors.ts'
import type { HttpIo } from './http.ts'

/**
 * Reads request bodies, each up to a limit, all together up to a budget: slow senders of large bodies could
 * otherwise fill the memory before any of their messages is counted.
 */
export class BodyReader {
  readonly #limit: number
  readonly #budget: number
  #held = 0

  /**
   * @param limitBytes longest body
   * @param budgetBytes all bodies being read at one time
   */
  constructor(limitBytes: number, budgetBytes: number) {
    this.#limit = limitBytes
    this.#budget = budgetBytes
  }

  get heldBytes(): number {
    return this.#held
  }

  /** @throws ERR_TOO_LARGE by Content-Length before reading or by what arrives, ERR_OVERLOADED, ERR_HTTP when cut */
  read({ request, response }: HttpIo): Promise<Buffer> {
    const declared = Number(request.headers['content-length'] ?? 0)
    if (declared > this.#limit) {
      return Promise.reject(new SidecarError('ERR_TOO_LARGE', { detail: `Content-Length ${declared}` }))
    }
    // The listener leaves this to us, so that strangers are not invited to send.
    if (request.headers.expect !== undefined) response.writeContinue()
    return new Promise((resolve, reject) => {
      const parts: Buffer[] = []
      let size = 0
      let settled = false
      const settle = (error?: SidecarError): void => {
        if (settled) return
        settled = true
        this.#held -= size
        if (error !== undefined) reject(error)
        else resolve(parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts, size))
      }
      request.on('data', (part: Buffer) => {
        if (settled) return
        size += part.length
        this.#held += part.length
        parts.push(part)
        if (size > this.#limit) {
          settle(new SidecarError('ERR_TOO_LARGE', { detail: `more than ${this.#limit} bytes` }))
        } else if (this.#held > this.#budget) {
          const detail = `${this.#held} bytes of bodies are being read`
          settle(new SidecarError('ERR_OVERLOADED', { detail, headers: { 'Retry-After': '1' } }))
        }
      })
      request.on('end', () => settle())
      request.on('close', () => {
        if (!settled) settle(new SidecarError('ERR_HTTP', { detail: 'the body was cut off' }))
      })
    })
  }
}
