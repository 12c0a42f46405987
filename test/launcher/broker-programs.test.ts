/** Programs that know no proxy, as they are: their ordinary ways to connect lead to what is allowed and nowhere else. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import t from 'tap'
import {
  type Asked,
  clean,
  compile,
  consent,
  noCompiler,
  type PlayedProxy,
  playProxy,
  python,
  run,
} from '../support/broker.ts'

// Compilers and thousands of connects take several times as long where others want the processors, too.
t.setTimeout(300_000)
if (noCompiler !== undefined) {
  t.plan(0, noCompiler)
  process.exit(0)
}
const { driver, child } = compile()
type T = Parameters<typeof run>[0]

interface Network {
  readonly proxy: PlayedProxy
  /** Of the web server, which stands for 198.51.100.1:80 and itself. */
  readonly port: number
  /** Output of a command. */
  output(...command: readonly string[]): Promise<string>
}

/** A web server, and a proxy that leads nowhere else. */
async function network(t: T): Promise<Network> {
  const listener: RequestListener = (request, response) => {
    request
      .on('end', () => response.end(`${request.method} ${request.url} of ${request.headers.host}`))
      .resume()
  }
  const web = createServer(listener).listen(0, '127.0.0.1')
  await once(web, 'listening')
  t.teardown(async () => {
    web.closeAllConnections()
    web.close()
    await once(web, 'close')
  })
  const { port } = web.address() as AddressInfo
  const allowed = ['198.51.100.1:80', `127.0.0.1:${port}`]
  const serve = ({ target, socket }: Asked): void => {
    if (target === '198.51.100.3:80') return void socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n')
    if (!allowed.includes(target)) return void socket.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    socket.write(consent)
    const upstream = connect(port, '127.0.0.1')
    upstream.on('error', () => socket.destroy())
    socket.pipe(upstream).pipe(socket)
  }
  const proxy = await playProxy(t, serve)
  return {
    proxy,
    port,
    output: async (...command) => {
      const outcome = await run(t, driver, ['--proxy', `127.0.0.1:${proxy.port}`], command)
      t.equal(outcome.stderr, '')
      clean(t, outcome)
      return outcome.stdout
    },
  }
}

t.test('Node.js: http, fetch and net', async (t) => {
  const { output, port, proxy } = await network(t)
  const script = `
    import http from 'node:http'
    import net from 'node:net'
    const tell = async (what, does) => console.log(what, await does().catch((e) => (e.cause ?? e).code))
    const get = (url, options = {}) => new Promise((resolve, reject) => {
      const request = http.request(url, options, async (answer) => resolve((await answer.toArray()).join('')))
      request.on('error', reject).end(options.body)
    })
    const raw = (host, port, timeout) => new Promise((resolve, reject) => {
      const socket = net.connect({ host, port, timeout })
      let text = ''
      socket.on('connect', () => socket.write('GET /raw HTTP/1.1\\r\\nHost: h\\r\\nConnection: close\\r\\n\\r\\n'))
      socket.on('data', (part) => { text += part }).on('end', () => resolve(text.split('\\r\\n\\r\\n')[1])).on('error', reject)
    })
    const agent = new http.Agent({ keepAlive: true })
    await tell('http', () => get('http://198.51.100.1/a', { agent }))
    await tell('kept', () => get('http://198.51.100.1/b', { agent, method: 'POST', body: 'x'.repeat(100000) }))
    await tell('fetch', async () => (await fetch('http://198.51.100.1/c')).text())
    // Two addresses, of which the proxy allows one.
    await tell('name', async () => (await fetch('http://localhost:${port}/d')).text())
    await tell('net', () => raw('198.51.100.1', 80, 5000))
    await tell('http denied', () => get('http://198.51.100.2/'))
    await tell('fetch denied', async () => (await fetch('http://198.51.100.2/')).text())
    await tell('net denied', () => raw('::1', 22))
    await tell('refused', () => get('http://198.51.100.3/'))
    const many = await Promise.all(Array.from({ length: 100 }, (_, i) => get('http://198.51.100.1/' + i, { agent: false })))
    console.log('many', new Set(many).size)
    agent.destroy()
    process.exit(0)`
  const text = await output(process.execPath, '--input-type=module', '-e', script)
  t.same(text.trim().split('\n'), [
    'http GET /a of 198.51.100.1',
    'kept POST /b of 198.51.100.1',
    'fetch GET /c of 198.51.100.1',
    `name GET /d of localhost:${port}`,
    'net GET /raw of h',
    'http denied EACCES',
    'fetch denied EACCES',
    'net denied EACCES',
    'refused ECONNREFUSED',
    'many 100',
  ])
  t.ok(
    proxy.asked.every(({ early }) => early),
    'all of its sockets are non-blocking',
  )
})

t.test(
  'Python: sockets, timeouts, urllib and asyncio',
  { skip: !python && 'there is no python3' },
  async (t) => {
    const { output, port } = await network(t)
    const script = `
import asyncio, socket, urllib.request
def tell(what, does):
    try: print(what, does(), flush=True)
    except OSError as e: print(what, getattr(e, 'reason', e).errno, flush=True)
def raw(host, timeout=None):
    with socket.create_connection((host, 80), timeout) as s:
        s.sendall(b'GET /raw HTTP/1.0\\r\\nHost: h\\r\\n\\r\\n')
        return s.makefile().read().split('\\n')[-1]
tell('blocking', lambda: raw('198.51.100.1'))
tell('timeout', lambda: raw('198.51.100.1', 5))
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
tell('urllib', lambda: opener.open('http://198.51.100.1/u').read().decode())
tell('name', lambda: opener.open('http://localhost:${port}/n').read().decode())
async def stream(host):
    reader, writer = await asyncio.open_connection(host, 80)
    writer.write(b'GET /async HTTP/1.0\\r\\nHost: h\\r\\n\\r\\n')
    text = (await reader.read()).decode()
    writer.close()
    return text.split('\\n')[-1]
tell('asyncio', lambda: asyncio.run(stream('198.51.100.1')))
async def many():
    return len(await asyncio.gather(*[stream('198.51.100.1') for _ in range(100)]))
tell('many', lambda: asyncio.run(many()))
for host in ('198.51.100.2', '198.51.100.3'):
    tell('blocking', lambda: raw(host))
    tell('timeout', lambda: raw(host, 5))
    tell('urllib', lambda: opener.open(f'http://{host}/').read())
    tell('asyncio', lambda: asyncio.run(stream(host)))
s = socket.socket()
tell('first', lambda: s.connect_ex(('198.51.100.2', 80)))
tell('then', lambda: s.connect_ex(('198.51.100.1', 80)))
tell('once more', lambda: s.connect_ex(('198.51.100.1', 80)))`
    const text = await output(python as string, '-c', script)
    t.same(text.trim().split('\n'), [
      'blocking GET /raw of h',
      'timeout GET /raw of h',
      'urllib GET /u of 198.51.100.1',
      `name GET /n of localhost:${port}`,
      'asyncio GET /async of h',
      'many 100',
      ...[13, 111].flatMap((error) =>
        ['blocking', 'timeout', 'urllib', 'asyncio'].map((way) => `${way} ${error}`),
      ),
      ...['first 13', 'then 0', 'once more 106'],
    ])
  },
)

const curl = ((): string | undefined => {
  try {
    return execFileSync('curl', ['--version'], { encoding: 'utf8' })
  } catch {
    return undefined
  }
})()

t.test('curl', { skip: !curl && 'there is no curl' }, async (t) => {
  const { output } = await network(t)
  const options = ['-s', '--noproxy', '*', '--max-time', '10', '-w', ' %{exitcode}']
  t.equal(await output('curl', ...options, 'http://198.51.100.1/x'), 'GET /x of 198.51.100.1 0')
  const script = `curl ${options.map((each) => `'${each}'`).join(' ')} http://198.51.100.2/ || true`
  t.equal(await output('sh', '-c', script), ' 7')
})

t.test('a static program that polls as Go does', async (t) => {
  const proxy = await playProxy(t, ({ target, socket }) => {
    if (target !== '198.51.100.1:5432') return void socket.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    socket.write(`${consent}ok`)
    socket.pipe(socket)
  })
  const options = ['--proxy', `127.0.0.1:${proxy.port}`]
  t.same((await run(t, driver, options, [child, 'go', '198.51.100.1', '5432'])).values, {
    connect: 0,
    echoes: 1,
  })
  t.same((await run(t, driver, options, [child, 'go', '198.51.100.1', '5433'])).values, { connect: 13 })
})
