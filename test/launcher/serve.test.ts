import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { connect, type Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import {
  alive,
  bare,
  confined,
  launcher,
  noLauncher,
  openFolder,
  type Status,
  uids,
  until,
} from '../support/launcher.ts'

if (noLauncher !== undefined) {
  t.plan(0, noLauncher)
  process.exit(0)
}

interface Frame {
  readonly type: string
  readonly payload: Buffer
}

function frame(type: string, payload: Buffer | string = ''): Buffer {
  const bytes = Buffer.from(payload)
  const header = Buffer.alloc(5)
  header.write(type, 'latin1')
  header.writeUInt32BE(bytes.length, 1)
  return Buffer.concat([header, bytes])
}

const policy = (records: readonly string[]): Buffer => frame('P', records.map((each) => `${each}\0`).join(''))

const opened = new Set<Socket>()
t.teardown(() => {
  for (const socket of opened) socket.destroy()
})

/** The frames of a connection, in their order; undefined at its end. */
class Connection {
  readonly socket: Socket
  readonly #frames: AsyncIterator<Frame>
  constructor(path: string) {
    this.socket = connect(path)
    this.socket.on('error', () => {})
    opened.add(this.socket)
    this.#frames = this.#read()
  }
  async *#read(): AsyncGenerator<Frame> {
    let bytes = Buffer.alloc(0)
    for await (const chunk of this.socket) {
      bytes = Buffer.concat([bytes, chunk])
      while (bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt32BE(1)) {
        const end = 5 + bytes.readUInt32BE(1)
        yield { type: bytes.toString('latin1', 0, 1), payload: bytes.subarray(5, end) }
        bytes = bytes.subarray(end)
      }
    }
  }
  async next(): Promise<Frame | undefined> {
    try {
      const { value, done } = await this.#frames.next()
      return done ? undefined : value
    } catch {
      return undefined
    }
  }
  async json(type: string): Promise<Status> {
    let found = await this.next()
    // Empty: the end of stdout.
    while (found?.type === 'O' && found.payload.length === 0) found = await this.next()
    if (found?.type !== type) throw new Error(`not ${type}: ${found?.type} ${found?.payload}`)
    return JSON.parse(found.payload.toString())
  }
  /** Everything to the end, texts of one type together. */
  async rest(): Promise<Record<string, string>> {
    const all: Record<string, string> = {}
    for (let each = await this.next(); each !== undefined; each = await this.next())
      all[each.type] = (all[each.type] ?? '') + each.payload.toString()
    return all
  }
}

async function served(t: Test, uid: number, options: readonly string[] = ['--shared-pid-namespace']) {
  const folder = openFolder(t)
  const path = join(folder, 'stdio.sock')
  const child = spawn(launcher, ['serve', '--socket', path, '--uid', `${process.getuid?.()}`, ...options], {
    stdio: ['ignore', 'ignore', 'pipe'],
    ...(uid === process.getuid?.() ? {} : { uid, gid: uid }),
  })
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text
  })
  t.teardown(() => {
    child.kill('SIGTERM')
  })
  await until(() => existsSync(path), 'it listens')
  return { path, child, folder, err: () => err }
}

const environment = ['env PATH=/usr/bin:/bin', 'env GIVEN=yes']
const shell = (script: string): string[] => [...environment, 'arg /bin/sh', 'arg -c', `arg ${script}`]

for (const uid of uids)
  t.test(`as uid ${uid}`, async (t) => {
    const { path, child, err } = await served(t, uid)

    await t.test('report, output and exit come as frames, and stdin goes in', async (t) => {
      const connection = new Connection(path)
      connection.socket.write(
        policy([...confined, ...shell('cat; echo $GIVEN $PWD >&2; cat /etc/shadow; exit 3'), 'cwd /usr']),
      )
      t.match(await connection.json('R'), { event: 'report', kernel: { uid } })
      connection.socket.write(frame('I', 'hello '))
      connection.socket.write(Buffer.concat([frame('I', 'there\n'), frame('C')]))
      const { O: out, E: errors, X: exit } = await connection.rest()
      t.equal(out, 'hello there\n')
      t.match(errors, /^yes \/usr\ncat: \/etc\/shadow: Permission denied\n$/)
      t.same(JSON.parse(exit ?? ''), { event: 'exit', code: 3, unclean: false })
    })

    await t.test('megabytes pass both ways, in both speeds', async (t) => {
      const connection = new Connection(path)
      connection.socket.write(policy([...confined, ...environment, 'arg cat']))
      await connection.json('R')
      const block = Buffer.alloc(65536, 'x')
      for (let each = 0; each < 160; each++) connection.socket.write(frame('I', block))
      connection.socket.write(frame('C'))
      const { O: out } = await connection.rest()
      t.equal(out?.length, 160 * 65536)
    })

    await t.test('signals are forwarded; KILL ends the tree', async (t) => {
      const connection = new Connection(path)
      connection.socket.write(
        policy([...confined, ...shell('trap "echo term" TERM; echo ready; while :; do sleep 0.05; done')]),
      )
      const { pid } = await connection.json('R')
      t.equal((await connection.next())?.payload.toString(), 'ready\n')
      connection.socket.write(frame('K', Buffer.from([15])))
      t.equal((await connection.next())?.payload.toString(), 'term\n')
      connection.socket.write(frame('K', Buffer.from([9])))
      t.same(await connection.json('X'), {
        event: 'exit',
        signal: 'SIGKILL',
        reason: 'killed',
        unclean: false,
      })
      t.notOk(alive(pid))
    })

    await t.test('the end of the connection ends the server, after its grace time with force', async (t) => {
      for (const stuck of [false, true]) {
        const connection = new Connection(path)
        connection.socket.write(
          policy([
            ...confined,
            'grace 100',
            ...shell('trap "" TERM; echo ready; sleep 1000 & wait; sleep 1000'),
          ]),
        )
        const { pid } = await connection.json('R')
        await connection.next()
        // Also while it takes no input, and the socket is full of it.
        if (stuck)
          for (let each = 0; each < 20; each++) connection.socket.write(frame('I', Buffer.alloc(65536)))
        connection.socket.destroy()
        await until(() => !alive(pid), 'the server has ended')
        t.pass('ended')
      }
    })

    await t.test('what is no protocol ends the connection and the server', async (t) => {
      for (const hostile of [
        policy(bare),
        frame('Z'),
        frame('K', Buffer.from([19])),
        frame('K', Buffer.from([9, 9])),
        Buffer.from([0x49, 0xff, 0xff, 0xff, 0xff]),
      ]) {
        const connection = new Connection(path)
        connection.socket.write(policy([...bare, 'grace 100', ...environment, 'arg sleep', 'arg 1000']))
        const { pid } = await connection.json('R')
        connection.socket.write(hostile)
        t.same(await connection.rest(), {})
        await until(() => !alive(pid), 'the server has ended')
      }
    })

    await t.test('a first frame that is no good policy is refused', async (t) => {
      for (const [bytes, reason] of [
        [frame('I', 'x'), 'the first frame is not a policy'],
        [policy(['v 1', 'x y']), 'unknown key: x'],
        [policy(bare), 'missing: arg'],
        [policy([...bare, 'arg x', 'env novalue']), 'env: not NAME=VALUE'],
      ] as const) {
        const connection = new Connection(path)
        connection.socket.write(bytes)
        t.match(await connection.json('R'), { event: 'refused', mechanism: 'policy', reason })
        t.same(await connection.rest(), {})
      }
      const missing = new Connection(path)
      missing.socket.write(policy([...confined, ...environment, 'arg no-such-program']))
      t.match(await missing.json('R'), { event: 'refused', mechanism: 'exec' })
      t.match(JSON.parse((await missing.rest())['X'] ?? ''), { event: 'exit', code: 127 })
    })

    await t.test('a connection whose process is killed takes none of the others with it', async (t) => {
      const both = [new Connection(path), new Connection(path)]
      const pids: number[] = []
      for (const each of both) {
        each.socket.write(policy([...confined, ...environment, 'arg cat']))
        pids.push((await each.json('R')).pid)
      }
      const parents = pids.map((pid) => Number(/PPid:\t(\d+)/.exec(status(pid))?.[1]))
      const relay = Number(/PPid:\t(\d+)/.exec(status(parents[0] ?? 0))?.[1])
      process.kill(relay, 'SIGKILL')
      await until(() => !alive(pids[0] ?? 0), 'its server has ended')
      both[1]?.socket.write(frame('I', 'still'))
      t.equal((await both[1]?.next())?.payload.toString(), 'still')
      both[1]?.socket.destroy()
      await until(() => !alive(pids[1] ?? 0), 'the other has ended')
    })

    await t.test('it ends with TERM, its connections too, and removes its socket', async (t) => {
      t.equal(statSync(path).mode & 0o777, 0o660)
      const connection = new Connection(path)
      connection.socket.write(policy([...confined, ...environment, 'arg sleep', 'arg 1000']))
      const { pid } = await connection.json('R')
      child.kill('SIGTERM')
      const [code] = await once(child, 'close')
      t.equal(code, 0)
      t.notOk(alive(pid))
      t.notOk(existsSync(path))
      t.match(err(), /serve: unknown key: x/)
    })
  })

function status(pid: number): string {
  return readFileSync(`/proc/${pid}/status`, 'utf8')
}

const own = process.getuid?.() ?? 0

t.test('a process of the same container, of another uid, or below it has no business there', async (t) => {
  const strict = await served(t, own, [])
  t.same(await new Connection(strict.path).rest(), {})
  await until(() => /refused: it is a process of this container/.test(strict.err()), 'it says why')
  if (own === 0) {
    const foreign = await served(t, own, ['--shared-pid-namespace', '--uid', '4711'])
    t.same(await new Connection(foreign.path).rest(), {})
    await until(() => /refused: its uid is not the sidecar's/.test(foreign.err()), 'it says why')
  }
  const below = await served(t, own)
  const connection = new Connection(below.path)
  const script = `import socket; s = socket.socket(socket.AF_UNIX); s.connect("${below.path}"); print(len(s.recv(9)))`
  connection.socket.write(
    policy([...bare, `env PATH=${process.env['PATH']}`, 'arg python3', 'arg -c', `arg ${script}`]),
  )
  await connection.json('R')
  t.equal((await connection.rest())['O'], '0\n')
  await until(() => /refused: it belongs to a server/.test(below.err()), 'it says why')
})

t.test(
  'a peer in another PID namespace is let in',
  { skip: own === 0 ? false : 'needs root for a namespace' },
  async (t) => {
    const { folder } = await served(t, own, [])
    const path = join(folder, 'inner.sock')
    const inner = spawn(
      'unshare',
      ['--pid', '--fork', '--mount-proc', '--kill-child', launcher, 'serve', '--socket', path],
      { stdio: 'ignore' },
    )
    t.teardown(() => {
      // Deaf to TERM while it waits for what it forked, which ends with it.
      inner.kill('SIGKILL')
    })
    await until(() => existsSync(path), 'it listens')
    const connection = new Connection(path)
    connection.socket.write(policy([...confined, ...environment, 'arg echo', 'arg inside']))
    await connection.json('R')
    t.equal((await connection.rest())['O'], 'inside\n')
  },
)

t.test('the floor of the command line holds whatever the policy says', async (t) => {
  const { path } = await served(t, own, ['--shared-pid-namespace', '--require', 'landlock,seccomp,broker'])
  for (const [records, reason] of [
    [bare, /requires landlock/],
    [['v 1', 'fs open', 'net none', 'filter on'], /requires landlock/],
    [[...confined, 'net open'], /requires the broker/],
  ] as const) {
    const connection = new Connection(path)
    connection.socket.write(policy([...records, ...environment, 'arg true']))
    t.match(await connection.json('R'), { event: 'refused', reason })
  }
  const good = new Connection(path)
  good.socket.write(policy([...confined, ...environment, 'arg true']))
  t.match(await good.json('R'), { event: 'report' })
})

/** Whether somebody accepts connections there. */
function listens(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path)
    probe.once('connect', () => resolve(true)).once('error', () => resolve(false))
    probe.once('connect', () => probe.destroy())
  })
}

t.test('a socket that nobody listens on is replaced; anything else in its place is left', async (t) => {
  const folder = openFolder(t)
  mkdirSync(join(folder, 'taken'))
  writeFileSync(join(folder, 'file'), 'kept')
  chmodSync(folder, 0o755)
  chownSync(folder, own, process.getgid?.() ?? 0)
  for (const name of ['taken', 'file']) {
    const child = spawn(launcher, ['serve', '--socket', join(folder, name)], { stdio: 'ignore' })
    t.same((await once(child, 'close'))[0], 126)
  }
  const tooLong = join(folder, 'x'.repeat(107 - folder.length))
  const long = spawn(launcher, ['serve', '--socket', tooLong], { stdio: ['ignore', 'ignore', 'pipe'] })
  t.match(await text(long.stderr), /serve: socket path above 107 bytes/)
  const path = join(folder, 'stdio.sock')
  for (let round = 0; round < 2; round++) {
    const child = spawn(launcher, ['serve', '--socket', path, '--shared-pid-namespace'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    t.teardown(() => {
      child.kill('SIGKILL')
    })
    // The socket of the first one is still there when the second begins.
    await until(() => listens(path), 'it listens')
    await until(() => readdirSync(folder).sort().join() === 'file,stdio.sock,taken', 'nothing else is left')
    const second = spawn(launcher, ['serve', '--socket', path], { stdio: 'ignore' })
    t.teardown(() => {
      second.kill('SIGKILL')
    })
    t.equal((await once(second, 'close'))[0], 126, 'it is in use')
    child.kill('SIGKILL')
    await once(child, 'close')
  }
})

t.test('a server changes neither the launcher nor its socket', async (t) => {
  const { path, folder } = await served(t, own, ['--shared-pid-namespace'])
  const said = async (records: readonly string[], script: string): Promise<string> => {
    const connection = new Connection(path)
    connection.socket.write(policy([...records, ...shell(script)]))
    t.match(await connection.json('R'), { event: 'report' })
    let text = ''
    for (let found = await connection.next(); found !== undefined; found = await connection.next())
      if (found.type === 'O' || found.type === 'X') text += found.payload
    return text
  }
  const all = ['v 1', 'fs all', 'net none', 'filter on', 'proc self', 'fs.hide /nonexistent/own']
  for (const records of [all, all.slice(0, -1)])
    t.match(
      await said(records, `rm ${path} || echo kept; (: > ${launcher}-changed) || echo whole`),
      /^kept\nwhole\n/,
    )
  t.ok(existsSync(path))
  t.notOk(existsSync(`${launcher}-changed`))
  for (const [grant, kept] of [
    [folder, path],
    [dirname(launcher), launcher],
  ] as const) {
    const connection = new Connection(path)
    connection.socket.write(policy([...confined, `fs.rw ${grant}`, ...shell('echo ran')]))
    const reason = `fs.rw ${grant}: would let the server change ${kept}, which belongs to the sidecar`
    t.match(await connection.json('R'), { event: 'refused', reason })
  }
})

t.test('what a server linked in a folder that it writes gets it nothing at its next start', async (t) => {
  const { path } = await served(t, own, ['--shared-pid-namespace'])
  const folder = openFolder(t)
  for (const name of ['data', 'data/sub', 'secret']) mkdirSync(join(folder, name))
  writeFileSync(join(folder, 'secret/file'), 'a secret')
  const [data, sub, secret] = ['data', 'data/sub', 'secret'].map((name) => join(folder, name))
  const records = [...confined, `fs.rw ${data}`, `fs.r ${sub}`]
  const first = new Connection(path)
  first.socket.write(policy([...records, ...shell(`mv ${sub} ${sub}-away && ln -s ${secret} ${sub}`)]))
  t.match(await first.json('R'), { event: 'report' })
  t.match(await first.json('X'), { event: 'exit', code: 0 })
  const second = new Connection(path)
  second.socket.write(policy([...records, ...shell(`cat ${sub}/file`)]))
  const reason = `fs.r ${sub}: leads to ${secret}, out of ${data}, which the server may write`
  t.match(await second.json('R'), { event: 'refused', reason })
})
