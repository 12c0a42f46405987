import { constants } from 'node:os'
import t from 'tap'
import { type Asked, clean, compile, consent, noCompiler, playProxy, python, run } from '../support/broker.ts'
import { until } from '../support/sidecar.ts'

const { EACCES, EAGAIN, ECONNREFUSED, ETIMEDOUT } = constants.errno

// Compilers and thousands of connects take several times as long where others want the processors, too.
t.setTimeout(300_000)
if (noCompiler !== undefined || python === undefined) {
  t.plan(0, noCompiler ?? 'there is no python3')
  process.exit(0)
}
const { driver, child } = compile()
/** A deadline that a test can wait for, and too short for any other. */
const deadlineMs = 700
const { driver: hasty } = compile(['-O2', '-static', `-DBROKER_DEADLINE_MS=${deadlineMs}`])

const target = ['198.51.100.1', '80'] as const
type T = Parameters<typeof run>[0]

/** What connect gave in a child whose proxy answers so. */
async function connecting(t: T, answer: (asked: Asked) => void, by = driver): Promise<number | undefined> {
  const proxy = await playProxy(t, answer)
  const outcome = await run(t, by, ['--proxy', `127.0.0.1:${proxy.port}`], [child, 'connect', ...target])
  clean(t, outcome)
  return outcome.values['connect']
}

/** Runs Python below a proxy; what it printed. */
async function scripted(t: T, port: number, script: string, host = '127.0.0.1'): Promise<string> {
  const command = [python as string, '-c', `import os, socket, sys, threading\n${script}`]
  const outcome = await run(t, driver, ['--proxy', `${host}:${port}`], command)
  t.equal(outcome.stderr, '')
  clean(t, outcome)
  return outcome.stdout
}

t.test('the proxy is asked with the address, the token, and how long the caller can wait', async (t) => {
  const proxy = await playProxy(t, ({ socket }) => socket.end(consent))
  await scripted(
    t,
    proxy.port,
    `def to(family, address, blocking=True):
    s = socket.socket(family)
    s.setblocking(blocking)
    s.connect(address)
to(socket.AF_INET, ('198.51.100.1', 80))
to(socket.AF_INET, ('198.51.100.1', 443), False)
to(socket.AF_INET6, ('2001:db8::5', 8080))
to(socket.AF_INET6, ('::ffff:10.0.0.1', 5432))
to(socket.AF_INET6, ('::1', 1))
to(socket.AF_INET, ('0.0.0.0', ${proxy.port}))
to(socket.AF_INET6, ('::ffff:127.0.0.2', ${proxy.port}))
to(socket.AF_INET, ('203.0.113.53', 53))
to(socket.AF_INET6, ('::1', 53), False)`,
  )
  t.same(
    proxy.asked.map(({ head }) => head.split('\r\n')[0]),
    [
      'CONNECT 198.51.100.1:80 HTTP/1.1',
      'CONNECT 198.51.100.1:443 HTTP/1.1',
      'CONNECT [2001:db8::5]:8080 HTTP/1.1',
      'CONNECT 10.0.0.1:5432 HTTP/1.1',
      'CONNECT [::1]:1 HTTP/1.1',
      `CONNECT 0.0.0.0:${proxy.port} HTTP/1.1`,
      `CONNECT 127.0.0.2:${proxy.port} HTTP/1.1`,
      'CONNECT dns:53 HTTP/1.1',
      'CONNECT dns:53 HTTP/1.1',
    ],
  )
  t.equal(
    proxy.asked[0]?.head,
    'CONNECT 198.51.100.1:80 HTTP/1.1\r\nHost: 198.51.100.1:80\r\n' +
      'Proxy-Authorization: Bearer secret-token\r\nMcp-Sidecar-Broker: wait\r\n\r\n',
  )
  t.same(
    proxy.asked.map(({ early }) => early),
    [false, true, false, false, false, false, false, false, true],
  )
})

for (const [host, bracketed, mapped] of [
  ['127.0.0.1', '127.0.0.1', '::ffff:127.0.0.1'],
  ['::1', '[::1]', undefined],
] as const) {
  t.test(`a connect to the proxy itself, at ${host}, is a plain connection to it`, async (t) => {
    const proxy = await playProxy(t, ({ socket, head }) => socket.end(head), host)
    const text = await scripted(
      t,
      proxy.port,
      `for family, host in ((socket.AF_INET6 if ':' in '${host}' else socket.AF_INET, '${host}'), (socket.AF_INET6, '${mapped ?? host}')):
    s = socket.socket(family)
    s.connect((host, ${proxy.port}))
    s.sendall(b'CONNECT mine:1 HTTP/1.1\\r\\n\\r\\n')
    print(s.recv(100))`,
      bracketed,
    )
    t.equal(text, "b'CONNECT mine:1 HTTP/1.1\\r\\n\\r\\n'\n".repeat(2), 'not a byte of ours comes before')
    t.same(
      proxy.asked.map(({ target }) => target),
      ['mine:1', 'mine:1'],
    )
  })
}

const line = (status: string): string => `HTTP/1.1 ${status}\r\nContent-Length: 0\r\n\r\n`
const answers: readonly (readonly [string, string, number])[] = [
  ['200', consent, 0],
  ['200 of HTTP/1.0, without words', 'HTTP/1.0 200\r\n\r\n', 0],
  ['200 with many headers', `HTTP/1.1 200 OK\r\n${'X-A: b\r\n'.repeat(400)}\r\n`, 0],
  ['403', line('403 Forbidden'), EACCES],
  ['400', line('400 Bad Request'), EACCES],
  ['407', line('407 Proxy Authentication Required'), ECONNREFUSED],
  ['502', line('502 Bad Gateway'), ECONNREFUSED],
  ['503', line('503 Service Unavailable'), EAGAIN],
  ['504', line('504 Gateway Timeout'), ETIMEDOUT],
  ['a status that it does not have', line('299 Odd'), ECONNREFUSED],
  ['100', line('100 Continue'), ECONNREFUSED],
  ['garbage', 'SSH-2.0-OpenSSH_9.2\r\n', ECONNREFUSED],
  ['a status that is longer', line('2000 OK'), ECONNREFUSED],
  ['a blank too many', 'HTTP/1.1  200 OK\r\n\r\n', ECONNREFUSED],
  ['zeros', '\0'.repeat(100), ECONNREFUSED],
  ['half a status line', 'HTTP/1.1 20', ECONNREFUSED],
  ['half a head', 'HTTP/1.1 200 OK\r\nX: y\r\n', ECONNREFUSED],
  ['bare line feeds', 'HTTP/1.1 200 OK\n\n', ECONNREFUSED],
  ['an endless head', `HTTP/1.1 200 OK\r\n${'X-A: b\r\n'.repeat(4000)}`, ECONNREFUSED],
  ['nothing', '', ECONNREFUSED],
]
for (const [what, answer, error] of answers) {
  t.test(`the proxy answers ${what}`, async (t) => {
    t.equal(await connecting(t, ({ socket }) => socket.end(answer, 'latin1')), error)
  })
}

t.test('an answer that comes byte by byte is the same answer', async (t) => {
  const trickle = ({ socket }: Asked): void => {
    socket.setNoDelay()
    const next = (at: number): void => {
      socket.write(consent[at] as string, () => at + 1 < consent.length && setImmediate(next, at + 1))
    }
    next(0)
  }
  t.equal(await connecting(t, trickle), 0)
})

t.test('a proxy that resets the connection refuses', async (t) => {
  t.equal(await connecting(t, ({ socket }) => void socket.resetAndDestroy()), ECONNREFUSED)
})

t.test('a connection that was made ahead and has ended is replaced once, by a new one', async (t) => {
  for (const [ended, error] of [
    [1, 0],
    [2, ECONNREFUSED],
  ] as const)
    for (const end of ['destroy', 'resetAndDestroy'] as const) {
      const proxy = await playProxy(t, ({ socket }) => {
        const number = proxy.asked.length
        if (number > 1 && number <= 1 + ended) socket[end]()
        else socket.end(consent)
      })
      const text = await scripted(
        t,
        proxy.port,
        `for port in (80, 81):
    s = socket.socket()
    print(s.connect_ex(('198.51.100.1', port)))`,
      )
      t.equal(text, `0\n${error}\n`, `${ended} ${end}`)
      t.same(
        proxy.asked.map(({ target }) => target),
        ['198.51.100.1:80', '198.51.100.1:81', '198.51.100.1:81'],
      )
    }
})

t.test('a proxy that says nothing, or never the end, is waited for until the deadline', async (t) => {
  const start = performance.now()
  t.equal(await connecting(t, () => {}, hasty), ETIMEDOUT)
  t.ok(performance.now() - start >= deadlineMs)
  const half = ({ socket }: Asked): void => void socket.write('HTTP/1.1 200 OK\r\n')
  t.equal(await connecting(t, half, hasty), ETIMEDOUT)
})

t.test('a proxy that is down refuses', async (t) => {
  const proxy = await playProxy(t, () => {})
  // Nobody listens at its other address.
  const outcome = await run(t, driver, ['--proxy', `127.0.0.2:${proxy.port}`], [child, 'connect', ...target])
  t.equal(outcome.values['connect'], ECONNREFUSED)
  clean(t, outcome)
})

t.test(
  'what the server says first, right behind the answer, reaches the program byte for byte',
  async (t) => {
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 8)) & 255))
    for (const cut of [0, 1, 474, 475, 512, 1000, bytes.length]) {
      const proxy = await playProxy(t, ({ socket }) => {
        socket.write(Buffer.concat([Buffer.from(consent), bytes.subarray(0, cut)]))
        socket.end(bytes.subarray(cut))
      })
      const text = await scripted(
        t,
        proxy.port,
        `import hashlib
s = socket.create_connection(('198.51.100.1', 22))
h = hashlib.sha256()
n = 0
while True:
    part = s.recv(65536)
    if not part: break
    n += len(part)
    h.update(part)
expected = hashlib.sha256(bytes((i * 7 + (i >> 8)) & 255 for i in range(300000))).hexdigest()
print(n, h.hexdigest() == expected)`,
      )
      t.equal(text, `${bytes.length} True\n`, `cut at ${cut}`)
    }
  },
)

t.test('a connect that waits does not hold up others', async (t) => {
  const held: Asked[] = []
  const proxy = await playProxy(t, (asked) => {
    if (asked.target === '192.0.2.9:80') held.push(asked)
    else asked.socket.end(`${consent}quick`)
    // The slow ones are served when all of the quick ones have been.
    if (asked.target === '198.51.100.1:99') for (const { socket } of held) socket.end(`${consent}slow`)
  })
  const text = await scripted(
    t,
    proxy.port,
    `order = []
def one(host, port):
    order.append(socket.create_connection((host, port)).recv(10).decode())
slow = [threading.Thread(target=one, args=('192.0.2.9', 80)) for _ in range(50)]
for each in slow: each.start()
for port in range(1, 53): one('198.51.100.1', port)
for port in range(54, 100): one('198.51.100.1', port)
for each in slow: each.join()
print(order.index('slow') >= 97, order.count('quick'), order.count('slow'))`,
  )
  t.equal(text, 'True 98 50\n')
})

t.test('a caller that dies while it waits takes its connection to the proxy along', async (t) => {
  const proxy = await playProxy(t, () => {})
  const running = scripted(
    t,
    proxy.port,
    `import signal, subprocess
code = "import socket; socket.create_connection(('192.0.2.9', 80))"
victims = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(3)]
socket.socket().connect(('127.0.0.1', ${proxy.port}))
gate = socket.create_connection(('127.0.0.1', ${proxy.port}))
gate.recv(1)
for each in victims: each.send_signal(signal.SIGKILL)
for each in victims: each.wait()
gate.recv(1)
print('on')`,
  )
  await until(() => proxy.asked.length === 3, 'three wait')
  // Plain connections, which no request came over; the second one is the gate.
  const gates = (): typeof proxy.sockets =>
    proxy.sockets.filter((each) => !proxy.asked.some(({ socket }) => socket === each))
  await until(() => gates().length === 2, 'the gate is there')
  const ended = proxy.asked.map(
    ({ socket }) => new Promise<void>((resolve) => socket.once('end', resolve).resume()),
  )
  gates()[1]?.write('1')
  await Promise.all(ended)
  gates()[1]?.write('2')
  t.equal(await running, 'on\n')
})
