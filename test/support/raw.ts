/** A bare TCP connection: what no HTTP client would send, and what it gets. */
import { connect, type Socket } from 'node:net'
import { until } from './sidecar.ts'

export interface RawAnswer {
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** The body as JSON, or undefined. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any shape
  readonly json: any
}

export class RawConnection {
  readonly socket: Socket
  /** Everything received, one character for each byte. */
  text = ''
  /** The other side has ended its half. */
  ended = false
  closed = false

  constructor(port: number) {
    // Half-open on purpose: a well-behaved client would end its side too, an attacker does not.
    this.socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    this.socket.setEncoding('latin1')
    this.socket.on('data', (part) => {
      this.text += part
    })
    this.socket.on('end', () => {
      this.ended = true
    })
    this.socket.on('error', () => {})
    this.socket.on('close', () => {
      this.closed = true
    })
  }

  write(text: string | Buffer): this {
    this.socket.write(typeof text === 'string' ? Buffer.from(text) : text)
    return this
  }

  /** Complete responses so far. */
  get answers(): RawAnswer[] {
    return parseAnswers(this.text)
  }

  async answer(index = 0, ms = 20_000): Promise<RawAnswer> {
    await until(() => this.answers.length > index || this.closed, `answer ${index + 1}`, ms)
    const answer = this.answers[index]
    if (answer === undefined) throw new Error(`no answer ${index + 1}, but ${JSON.stringify(this.text)}`)
    return answer
  }

  /** True once the other side takes nothing any more: it has closed, not merely ended its half. */
  async refusesMore(ms = 3000): Promise<boolean> {
    try {
      await until(
        () => {
          if (!this.closed) this.socket.write('x')
          return this.closed
        },
        'the connection is closed on both sides',
        ms,
      )
      return true
    } catch {
      return false
    }
  }

  close(): void {
    this.socket.destroy()
  }
}

/** Sends a text and collects the answers until the server closes or `count` have come. */
export async function rawAnswers(port: number, text: string | Buffer, count = 1): Promise<RawAnswer[]> {
  const connection = new RawConnection(port).write(text)
  try {
    await until(() => connection.answers.length >= count || connection.ended, `${count} answers`)
    return connection.answers
  } finally {
    connection.close()
  }
}

/** Responses with Content-Length, or with chunks; what is incomplete is left out. */
export function parseAnswers(text: string): RawAnswer[] {
  const answers: RawAnswer[] = []
  let rest = text
  for (;;) {
    const end = rest.indexOf('\r\n\r\n')
    if (end < 0) return answers
    const [first = '', ...lines] = rest.slice(0, end).split('\r\n')
    const headers: Record<string, string> = {}
    for (const line of lines) {
      const colon = line.indexOf(':')
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim()
    }
    rest = rest.slice(end + 4)
    const status = Number(first.split(' ')[1])
    let body = ''
    if (headers['transfer-encoding'] === 'chunked') {
      const done = /(?:^|\r\n)0\r\n\r\n/.exec(rest)
      if (done === null) return answers
      const chunked = rest.slice(0, done.index)
      rest = rest.slice(done.index + done[0].length)
      for (let at = 0; at < chunked.length; ) {
        const line = chunked.indexOf('\r\n', at)
        const size = Number.parseInt(chunked.slice(at, line), 16)
        body += chunked.slice(line + 2, line + 2 + size)
        at = line + 2 + size + 2
      }
    } else {
      const size = Number(headers['content-length'] ?? 0)
      if (rest.length < size) return answers
      body = rest.slice(0, size)
      rest = rest.slice(size)
    }
    answers.push({ status, headers, body, json: parse(body) })
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
