/** The network around the sandbox: hosts that the profile allows, and one that nothing may reach. */
import { createSocket } from 'node:dgram'
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { authority } from '../support/pki.ts'

/** Of the host that the profile allows; a name of its own in the loopback network. */
export const allowedAddress = '127.0.0.2'
/** From where the suite itself connects. */
const ownAddress = '127.0.0.77'

export interface Listeners {
  /** Says `allowed` to everybody who connects. */
  readonly tcpPort: number
  /** HTTP, where `/redirect` leads to the forbidden port. */
  readonly httpPort: number
  readonly tlsPort: number
  /** TCP on every address, and UDP. */
  readonly forbiddenPort: number
  /** What reached the forbidden ones. */
  readonly reached: readonly string[]
  /** PEM, of the authority behind the TLS listener. */
  readonly ca: string
  /** A further forbidden TCP port. */
  forbid(host: string, port: number): Promise<void>
  /** A forbidden unix socket. */
  forbidPath(path: string): Promise<void>
  /** Resolves when every connection made before has been counted. */
  settled(): Promise<void>
  close(): Promise<void>
}

export async function openListeners(): Promise<Listeners> {
  const reached: string[] = []
  const waiting: (() => void)[] = []
  const closing: (() => void)[] = []

  const opened = async (server: Server, ...where: [number, string] | [string]): Promise<number> => {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(...(where as [number, string]), resolve)
    })
    server.on('error', () => {})
    closing.push(() => server.close())
    const address = server.address() as AddressInfo | string
    return typeof address === 'string' ? 0 : address.port
  }
  const counter = (name: string): Server =>
    createServer((socket) => {
      socket.on('error', () => {})
      if (socket.remoteAddress?.endsWith(ownAddress) === true) waiting.shift()?.()
      else reached.push(name)
      socket.end('forbidden\n')
    })

  const tcp = createServer((socket) => {
    socket.on('error', () => {})
    socket.end('allowed\n')
  })
  const tcpPort = await opened(tcp, 0, allowedAddress)
  const forbiddenPort = await opened(counter('tcp'), 0, '::')

  const udp = createSocket('udp6')
  udp.on('message', () => reached.push('udp'))
  await new Promise<void>((resolve) => {
    udp.bind(forbiddenPort, '::', resolve)
  })
  closing.push(() => udp.close())

  const http = createHttpServer((request, response) => {
    if (request.url === '/redirect') {
      response.writeHead(302, { Location: `http://127.0.0.1:${forbiddenPort}/` }).end()
    } else response.end(`host ${request.headers.host}`)
  })
  const httpPort = await opened(http, 0, allowedAddress)

  const ca = authority('Escape Test CA')
  const server = ca.issue({ cn: 'allowed.test', dns: ['allowed.test', '*.wild.test'], usage: 'server' })
  const https = createHttpsServer({ cert: server.chain, key: server.key }, (_, response) => {
    response.end('over TLS')
  })
  const tlsPort = await opened(https, 0, allowedAddress)

  return {
    tcpPort,
    httpPort,
    tlsPort,
    forbiddenPort,
    reached,
    ca: ca.certificate,
    forbid: async (host, port) => {
      await opened(counter(`tcp ${host}`), port, host)
    },
    forbidPath: async (path) => {
      await opened(counter('unix'), path)
    },
    settled: () =>
      new Promise((resolve, reject) => {
        waiting.push(resolve)
        const socket = connect({ host: '127.0.0.1', port: forbiddenPort, localAddress: ownAddress })
        socket.once('error', reject)
        socket.resume()
      }),
    close: async () => {
      for (const each of closing) each()
    },
  }
}
