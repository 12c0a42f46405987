/** Programs as they are, with the proxy variables of a child. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, request as httpRequest, type Server } from 'node:http'
import { createServer as createHttpsServer, get as httpsGet } from 'node:https'
import { type AddressInfo, connect as connectTcp, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import type { EgressChild } from '../../src/core/sandbox.ts'
import { authority } from '../support/pki.ts'
import { allow, basic, startEgress, type TestEgress } from './support.ts'

const run = promisify(execFile)

/** Whether a program is in the PATH; the reason to skip if not. */
function missing(program: string): string | false {
  const found = (process.env['PATH'] ?? '').split(':').some((folder) => {
    try {
      accessSync(join(folder, program))
      return true
    } catch {
      return false
    }
  })
  return found ? false : `${program} is not installed`
}

interface World {
  readonly proxy: TestEgress
  readonly child: EgressChild
  readonly caFile: string
  readonly ca: string
}

let world: World

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

t.before(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'egress-'))
  const root = authority('Test CA')
  const issued = root.issue({ cn: 'ok.example.com', dns: ['ok.example.com'], usage: 'server' })
  const caFile = join(folder, 'ca.pem')
  writeFileSync(caFile, root.certificate)
  t.teardown(() => rmSync(folder, { recursive: true }))
  const plain = await listening(
    createServer((request, response) => {
      if (request.url === '/away') response.writeHead(302, { location: 'http://evil.example.com/' }).end()
      else if (request.method === 'GET') response.end('plain ')
      else request.pipe(response)
    }),
  )
  const secure = await listening(
    createHttpsServer({ cert: issued.chain, key: issued.key }, (_, response) =>
      response.end('secure'),
    ) as unknown as Server,
  )
  const proxy = await startEgress(t, {
    dial: (address, port) =>
      connectTcp({
        host: address,
        port: port === 80 ? plain : port === 443 ? secure : port,
        allowHalfOpen: true,
      }),
  })
  proxy.names.set('ok.example.com', ['127.0.0.1'])
  const child = proxy.egress.admit(
    allow({ hosts: ['ok.example.com'], cidrs: ['127.0.0.1/32'], ports: [80, 443], checkSni: true }),
    { name: 'p' },
  )
  world = { proxy, child, caFile, ca: root.certificate }
})

const curlArgs = ['--silent', '--show-error', '--max-time', '10']

interface CurlFailure {
  readonly code: number
  readonly stderr: string
}

async function curl(...args: string[]): Promise<string> {
  return (await run('curl', [...curlArgs, ...args], { env: { PATH: process.env['PATH'] ?? '' } })).stdout
}

t.test('curl goes through the proxy for http, https and any TCP', { skip: missing('curl') }, async (t) => {
  const { child, caFile } = world
  const proxy = child.proxyUrl.reveal()
  const socks = proxy.replace('http://', 'socks5h://')
  t.equal(await curl('--proxy', proxy, 'http://ok.example.com/'), 'plain ')
  t.equal(await curl('--proxy', proxy, '--proxytunnel', 'http://ok.example.com/'), 'plain ')
  t.equal(await curl('--proxy', proxy, '--cacert', caFile, 'https://ok.example.com/'), 'secure')
  t.equal(await curl('--proxy', socks, 'http://ok.example.com/'), 'plain ')
  t.equal(await curl('--proxy', socks, '--cacert', caFile, 'https://ok.example.com/'), 'secure')
  t.equal(await curl('--proxy', proxy, '--proxy-anyauth', 'http://ok.example.com/'), 'plain ')
  const large = 'x'.repeat(100_000)
  t.equal(await curl('--proxy', proxy, '--data', large, 'http://ok.example.com/'), large)
  t.equal(
    await curl(
      '--proxy',
      proxy,
      '-H',
      'Transfer-Encoding: chunked',
      '--data',
      large,
      'http://ok.example.com/',
    ),
    large,
  )
  t.equal(await curl('--proxy', proxy, '--http1.0', '--data', 'abc', 'http://ok.example.com/'), 'abc')
  t.match(await curl('--proxy', proxy, '--head', 'http://ok.example.com/'), /^HTTP\/1.1 200/)
  t.equal(
    await curl('--proxy', proxy, 'http://ok.example.com/', 'http://ok.example.com/'),
    'plain plain ',
    'one connection, two requests',
  )
})

t.test('curl gets nothing anywhere else', { skip: missing('curl') }, async (t) => {
  const { child, proxy } = world
  const url = child.proxyUrl.reveal()
  const socks = url.replace('http://', 'socks5h://')
  const answer = (...args: string[]): Promise<string> =>
    curl('--proxy', url, '--output', '/dev/null', '--write-out', '%{http_code}', ...args)
  t.equal(await answer('http://evil.example.com/'), '403')
  t.equal(await answer('http://169.254.169.254/latest/meta-data/'), '403')
  t.equal(await answer('--location', 'http://ok.example.com/away'), '403', 'a redirect')
  t.equal(await answer('http://ok.example.com:8080/'), '403')
  t.equal(await answer(`http://127.0.0.1:${proxy.egress.port}/`), '403')
  for (const args of [
    ['--proxy', url, 'https://evil.example.com/'],
    [
      '--proxy',
      url,
      '--connect-to',
      'ok.example.com:443:ok.example.com:443',
      '-k',
      'https://other.example.com/',
    ],
    ['--proxy', socks, 'http://evil.example.com/'],
    ['--proxy', socks, 'http://10.0.0.1/'],
    ['--proxy', url.replace('child:', 'child:x'), 'https://ok.example.com/'],
    ['--proxy', socks.replace('child:', 'child:x'), 'http://ok.example.com/'],
    ['--proxy', url.replace('http://', 'socks4a://'), 'http://ok.example.com/'],
  ]) {
    await t.rejects(
      curl(...args),
      { code: Number } as unknown as CurlFailure,
      args.join(' ').replaceAll(child.token.reveal(), 'TOKEN'),
    )
  }
})

t.test('Python finds the proxy in its variables', { skip: missing('python3') }, async (t) => {
  const { child, caFile } = world
  const url = child.proxyUrl.reveal()
  const script = `
import urllib.request, urllib.error, ssl, sys
print(urllib.request.urlopen('http://ok.example.com/').read().decode())
print(urllib.request.urlopen('https://ok.example.com/', context=ssl.create_default_context(cafile=sys.argv[1])).read().decode())
for url in ['http://evil.example.com/', 'https://evil.example.com/', 'http://169.254.169.254/']:
    try:
        urllib.request.urlopen(url)
        print('reached')
    except (urllib.error.URLError, OSError) as e:
        print('403' in str(e))
`
  const env = { PATH: process.env['PATH'] ?? '', http_proxy: url, https_proxy: url }
  const { stdout } = await run('python3', ['-c', script, caFile], { env })
  t.same(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.trim()),
    ['plain', 'secure', 'True', 'True', 'True'],
  )
})

t.test('Node.js goes through a tunnel with its own TLS', async (t) => {
  const { child, proxy, ca } = world
  const open = (target: string): Promise<{ status: number; socket: Socket }> =>
    new Promise((resolve, reject) => {
      httpRequest({
        port: proxy.egress.port,
        host: '127.0.0.1',
        method: 'CONNECT',
        path: target,
        headers: { 'proxy-authorization': basic(child) },
      })
        .on('connect', ({ statusCode = 0 }, socket) =>
          resolve({ status: statusCode, socket: socket as Socket }),
        )
        .on('error', reject)
        .end()
    })
  const { status, socket } = await open('ok.example.com:443')
  t.equal(status, 200)
  const text = await new Promise<string>((resolve, reject) => {
    httpsGet(
      { socket, host: 'ok.example.com', servername: 'ok.example.com', path: '/', ca, agent: false } as object,
      (response) => {
        response.setEncoding('utf8').on('data', resolve)
      },
    ).on('error', reject)
  })
  t.equal(text, 'secure')
  socket.destroy()
  const refused = await open('evil.example.com:443')
  t.equal(refused.status, 403)
  refused.socket.destroy()
})
