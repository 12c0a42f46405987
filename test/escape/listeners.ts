/** The network around the sandbox: hosts that the profile allows, and one that nothing may reach. */
import { createSocket } from 'node:dgram'
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { networkInterfaces } from 'node:os'
import { authority } from '../support/pki.ts'

/** Of the host that the profile allows; a name of its own in the loopback network. */
export const allowedAddress = '127.0.0.2'
/** From where the suite itself connects. */
const ownAddress = '127.0.0.77'

export interface Listeners {
  /** Says `allowed` to everybody who connects; on the same port of 127.0.0.1 and ::1 is a forbidden listener. */
  readonly tcpPort: number
  /** HTTP, where `/redirect` leads to the forbidden port. */
  readonly httpPort: number
  readonly tlsPort: number
  /** A host with TLS on port 443; undefined where the kernel lets this user not listen there (EACCES). */
  readonly sniAddress: string | undefined
  /** TCP on every address, and UDP. */
  readonly forbiddenPort: number
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

/** @param reached where it is written what reached the forbidden ones */
export async function openListeners(reached: string[]): Promise<Listeners> {
  const waiting: (() => void)[] = []
  const closing: (() => void)[] = []

  const opened = async (
    server: Server,
    where: { port: number; host: string } | { path: string },
  ): Promise<number> => {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      // Room for a flood: a full queue makes connects wait for a second.
      server.listen({ ...where, backlog: 4096 }, resolve)
    })
    server.on('error', () => {})
    closing.push(() => server.close())
    const address = server.address() as AddressInfo | string
    return typeof address === 'string' ? 0 : address.port
  }
  const counter = (name: string): Server =>
    createServer((socket) => {
      socket.on('error', () => {})
      // Others that connected before may be accepted only after this one, in the same turn of the loop.
      if (socket.remoteAddress?.endsWith(ownAddress) === true) setImmediate(waiting.shift() ?? (() => {}))
      else reached.push(name)
      socket.end('forbidden\n')
    })

  const forbid = async (host: string, port: number): Promise<void> => {
    await opened(counter(`tcp ${host}`), { port, host })
  }

  const hasIPv6 = networkInterfaces()['lo']?.some(({ family }) => family === 'IPv6') === true
  const anywhere = hasIPv6 ? '::' : '0.0.0.0'
  /** A port that is free at the one address may be taken at another. */
  const besideForbidden = async (triesLeft = 20): Promise<number> => {
    const tcp = createServer((socket) => {
      socket.on('error', () => {})
      socket.end('allowed\n')
    })
    const port = await opened(tcp, { port: 0, host: allowedAddress })
    try {
      for (const host of ['127.0.0.1', ...(hasIPv6 ? ['::1'] : [])]) await forbid(host, port)
      return port
    } catch (error) {
      if (triesLeft === 0) throw error
      return await besideForbidden(triesLeft - 1)
    }
  }
  const tcpPort = await besideForbidden()
  const forbiddenPort = await opened(counter('tcp'), { port: 0, host: anywhere })

  const udp = createSocket(anywhere === '::' ? 'udp6' : 'udp4')
  udp.on('message', () => reached.push('udp'))
  await new Promise<void>((resolve) => {
    udp.bind(forbiddenPort, anywhere, resolve)
  })
  closing.push(() => udp.close())

  const http = createHttpServer((request, response) => {
    if (request.url === '/redirect') {
      response.writeHead(302, { Location: `http://127.0.0.1:${forbiddenPort}/` }).end()
    } else response.end(`host ${request.headers.host}`)
  })
  const httpPort = await opened(http, { port: 0, host: allowedAddress })

  const ca = authority('Escape Test CA')
  const server = ca.issue({ cn: 'allowed.test', dns: ['allowed.test', '*.wild.test'], usage: 'server' })
  const https = createHttpsServer({ cert: server.chain, key: server.key }, (_, response) => {
    response.end('over TLS')
  })
  const tlsPort = await opened(https, { port: 0, host: allowedAddress })

  // Of its own for each run: port 443 is there once.
  const own = `127.8.${process.pid % 250}.${1 + Math.floor(Math.random() * 250)}`
  const alike = createHttpsServer({ cert: server.chain, key: server.key }, (_, response) => {
    response.end('over TLS')
  })
  const sniAddress = await opened(alike, { port: 443, host: own }).then(
    () => own,
    (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EACCES') throw error
      return undefined
    },
  )

  return {
    sniAddress,
    tcpPort,
    httpPort,
    tlsPort,
    forbiddenPort,
    ca: ca.certificate,
    forbid,
    forbidPath: async (path) => {
      await opened(counter('unix'), { path })
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
