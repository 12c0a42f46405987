import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import type { Clock } from '../core/types.ts'

/** Why something could not be fetched; names who was asked, without the query. For the log. */
export class FetchError extends Error {
  override readonly name = 'FetchError'
  /** There was an answer, only not the one that was asked for. */
  readonly answered: boolean
  /** The answer says that what was asked is wrong (400), rather than who asked or who answers. */
  readonly refused: boolean

  constructor(
    message: string,
    options: ErrorOptions & { readonly answered?: boolean; readonly refused?: boolean } = {},
  ) {
    super(message, options)
    this.answered = options.answered ?? false
    this.refused = options.refused ?? false
  }
}

export interface Bounds {
  readonly clock: Pick<Clock, 'after'>
  /** For the whole answer. */
  readonly timeoutMs: number
  /** Of the answer. */
  readonly maxBytes: number
}

/** What somebody answered with, whatever the status. */
export interface Answered {
  readonly answer: IncomingMessage
  readonly text: string
}

/**
 * One request, and its whole answer as UTF-8 text. Certificates are verified, and no redirect is followed.
 *
 * @throws FetchError when it comes late, is too large or ends early; the error of the connection otherwise
 */
export function boundedRequest(
  url: URL,
  options: RequestOptions,
  body: string | undefined,
  { clock, timeoutMs, maxBytes }: Bounds,
): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const request = (url.protocol === 'http:' ? httpRequest : httpsRequest)(url, {
      ...options,
      // Said, because NODE_TLS_REJECT_UNAUTHORIZED would otherwise decide.
      rejectUnauthorized: true,
    })
    const timer = clock.after(timeoutMs, () =>
      fail(new FetchError(`it did not answer in full within ${timeoutMs} ms`)),
    )
    const fail = (thrown: unknown): void => {
      timer.cancel()
      reject(thrown)
      request.destroy()
    }
    request.on('error', fail)
    request.on('response', (answer) => {
      const chunks: Buffer[] = []
      let bytes = 0
      answer.on('error', fail)
      answer.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > maxBytes)
          fail(new FetchError(`it answered with more than ${maxBytes} bytes`, { answered: true }))
        else chunks.push(chunk)
      })
      answer.on('close', () => fail(new FetchError('it ended the connection within its answer')))
      answer.on('end', () => {
        timer.cancel()
        resolve({ answer, text: Buffer.concat(chunks).toString('utf8') })
      })
    })
    request.end(body)
  })
}
