import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { EventEmitter } from 'node:events'
import type { Readable } from 'node:stream'
import fc from 'fast-check'
import t from 'tap'
import {
  createLogger,
  type LogOptions,
  printable,
  readable,
  type SidecarLogger,
} from '../../src/observe/logger.ts'
import { holds } from '../support/property.ts'

const module = new URL('../../src/observe/logger.ts', import.meta.url).href

/** Starts a process that logs to its standard output with what `create(level, format)` gives it. */
function logging(script: string): ChildProcessByStdio<null, Readable, Readable> {
  const setup = `const { createLogger } = await import(${JSON.stringify(module)})
    const create = (level = 'info', format = 'json') => createLogger({ level, format }, process.stdout)\n`
  const args = [...process.execArgv, '--input-type=module', '-e', setup + script]
  return spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
}

function pretty(options: Partial<LogOptions> = {}): { log: SidecarLogger; written: string[] } {
  const written: string[] = []
  const output = { isTTY: true, write: (text: string) => written.push(text) }
  return { log: createLogger({ level: 'info', format: 'pretty', ...options }, output), written }
}

// One process for all of it: starting one costs more than the rest.
const script = `
  const log = create()
  await log.flush()
  log.info({ requestId: 'r', ms: 1.5, text: 'a\\nb\\u2028' }, 'call')
  log.error({ err: new Error('oops') }, 'failed')
  await log.flush()
  await log.flush()
  const all = async (log) => {
    for (const level of ['debug', 'info', 'warn', 'error']) log[level]({ levels: true }, level)
    await log.flush()
  }
  await all(create('warn'))
  const silent = create('silent', 'auto')
  await all(silent)
  silent.setLevel('debug')
  await all(silent)
  for (let i = 0; i < 5000; i++) log.info({ i }, 'x'.repeat(100))
  await log.flush()
  const times = [1767322799999, 1767322800000, 1767322800007, 1767322799999, 1767322860123]
  Date.now = () => times.shift() ?? 0
  for (let i = 0; i < 5; i++) log.info({ clock: true }, 'x')
  await log.flush()`

t.test('where nobody sits at a terminal, lines are JSON', async (t) => {
  const started = Date.now()
  const child = logging(script)
  const [text, stderr] = await Promise.all([collected(child.stdout), collected(child.stderr)])
  t.equal(stderr, '')
  const lines = text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  const having = (name: string): Record<string, unknown>[] => lines.filter((line) => name in line)

  t.test('with time, level, the fields and the text, and nothing about this machine', async (t) => {
    const { time, ...rest } = lines[0] as { time: string }
    t.same(rest, { level: 'info', requestId: 'r', ms: 1.5, text: 'a\nb\u2028', msg: 'call' })
    t.match(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    t.ok(Date.parse(time) >= started && Date.parse(time) <= Date.now())
    t.match(lines[1], { level: 'error', msg: 'failed', err: { type: 'Error', message: 'oops' } })
  })
  t.test('at the level wanted, which can be changed while running', async (t) => {
    const levels = having('levels').map(({ level }) => level)
    t.same(levels, ['warn', 'error', 'debug', 'info', 'warn', 'error'])
  })
  t.test('all of them, in order, far more than the buffer takes', async (t) => {
    t.same(
      having('i').map(({ i }) => i),
      Array.from({ length: 5000 }, (_, i) => i),
    )
  })
  t.test('with the right time from one second to the next, and when the clock is set back', async (t) => {
    t.same(
      having('clock').map(({ time }) => Date.parse(String(time))),
      [1767322799999, 1767322800000, 1767322800007, 1767322799999, 1767322860123],
    )
  })
})

t.test(
  'lines come out by themselves, and a reader that goes away does not take the sidecar with it',
  async (t) => {
    const child = logging(`
    const log = create()
    process.on('SIGUSR2', () => {
      setInterval(() => log.info({}, 'x'.repeat(50_000)), 5)
      setTimeout(() => process.exit(0), 500)
    })
    log.info({}, 'first')
    log.info({}, 'second')`)
    t.teardown(() => child.kill('SIGKILL'))
    const stderr = collected(child.stderr)
    let text = ''
    for await (const part of child.stdout) {
      text += String(part)
      if (text.split('\n').length > 2) break
    }
    t.match(text, /"first".*\n.*"second".*\n$/)
    child.kill('SIGUSR2')
    const code = await new Promise((resolve) => child.once('close', resolve))
    t.equal(code, 0)
    t.equal(await stderr, '')
  },
)

async function collected(stream: Readable): Promise<string> {
  let text = ''
  for await (const part of stream) text += String(part)
  return text
}

t.test('on a terminal, or where it is asked for, the text is readable', async (t) => {
  const { log, written } = pretty({ format: 'auto' })
  log.info({ method: 'ping', ms: 2 }, 'call')
  t.match(written, [/^\d\d:\d\d:\d\d info {2}call method=ping ms=2\n$/])
  const told = pretty({ format: 'pretty' })
  told.log.warn({ list: [1], object: { a: 'b' } }, 'text')
  t.match(told.written, [/^\S+ warn {2}text list=\[1\] object=\{"a":"b"\}\n$/])
  void told.log.flush()
})

t.test('levels count for readable text, too', async (t) => {
  const { log, written } = pretty({ level: 'error' })
  log.info({}, 'no')
  log.setLevel('info')
  log.info({}, 'yes')
  log.debug({}, 'no')
  t.equal(written.length, 1)
})

t.test('what the server writes to stderr is marked as its own', async (t) => {
  const line = JSON.stringify({
    level: 'info',
    time: '2026-01-02T03:04:05.678Z',
    pid: 7,
    stderr: 'hello',
    msg: 'server',
  })
  t.equal(readable(line), '03:04:05 info  server: hello\n')
})

const controls = fc
  .array(
    fc.oneof(
      fc.constantFrom('\u001b[2J', '\u009b31m', '\r', '\n', '\u0007', '\u007f', '\u0000', '\u0085', 'x'),
      fc.string({ unit: 'binary' }),
    ),
    { maxLength: 5 },
  )
  .map((parts) => parts.join(''))

t.test('nothing that peers write can move the cursor, recolour the terminal or fake a line', async (t) => {
  const { log, written } = pretty()
  holds(
    t,
    fc.property(controls, controls, controls, (value, name, text) => {
      written.length = 0
      log.warn({ [name]: value, nested: { [name]: [value] } }, text)
      log.info({ stderr: value }, 'server')
      return written.length === 2 && written.every((line) => /^\P{Cc}*\n$/u.test(line))
    }),
    500,
  )
})

t.test('printable text stays as it is', async (t) => {
  t.equal(printable('\u00e9\u{1f600} "quoted" \\ [2J'), '\u00e9\u{1f600} "quoted" \\ [2J')
  t.equal(printable('\u001b[2J\u009b\n'), '\\x1b[2J\\x9b\\x0a')
})

t.test('a terminal that was closed does not end the sidecar', async (t) => {
  const terminal = Object.assign(new EventEmitter(), {
    isTTY: true,
    write: () => terminal.emit('error', new Error('write EIO')),
  })
  const log = createLogger({ level: 'info', format: 'auto' }, terminal)
  t.doesNotThrow(() => log.info({}, 'nobody reads this'))
})
