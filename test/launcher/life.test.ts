import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import t, { type Test } from 'tap'
import {
  alive,
  bare,
  childrenOf,
  compiled,
  confined,
  type Launched,
  launch,
  launched,
  launcher,
  noLauncher,
  openFolder,
  outcomes,
  uids,
  until,
} from '../support/launcher.ts'

if (noLauncher !== undefined) {
  t.plan(0, noLauncher)
  process.exit(0)
}

const trees = compiled(t, 'trees')
const shell = (script: string): string[] => ['/bin/sh', '-c', script]
const gone = (pids: readonly number[]): Promise<void> => until(() => !pids.some(alive), `${pids} have ended`)

const pidsIn = (out: string): number[] =>
  out
    .split('\n')
    .filter((line) => /^\d+$/.test(line))
    .map(Number)

/** Pids that the server's script says, one a line. A daemon's own may come behind `ready`. */
async function pidsOf(running: Launched, count: number): Promise<number[]> {
  return pidsIn(await running.said((out) => out.includes('ready') && pidsIn(out).length >= count))
}

/** Processes that run this program. */
function runningProgram(program: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/exe`) === program
    } catch {
      return false
    }
  })
}

function policyFile(t: Test, records: readonly string[]): string {
  const path = join(openFolder(t), 'policy')
  writeFileSync(path, records.map((record) => `${record}\0`).join(''))
  return path
}

/** A server with a child, a child in a session of its own, and a daemon that lost its parent. */
const family = shell(`trap '' TERM INT HUP; sleep 1000 & echo $!; setsid sleep 1000 & echo $!;
  (setsid sh -c 'trap "" TERM HUP; echo $$; sleep 1000 & wait' &) ; sleep 0.1; echo $$; echo ready; while :; do sleep 1000; done`)

async function withFamily(
  t: Test,
  records: readonly string[],
  uid: number,
  end: (running: Launched) => void,
) {
  const running = launch(t, records, family, { uid })
  const pids = await pidsOf(running, 4)
  t.equal(pids.length, 4)
  t.ok(pids.every(alive))
  end(running)
  const result = await running.done()
  await gone(pids)
  return result
}

for (const uid of uids) {
  t.test(`as uid ${uid}`, async (t) => {
    // The kernel counts processes by user: where a limit matters nobody else is that one, or ends meanwhile.
    const counted = uid === 0 || process.getuid?.() !== 0 ? uid : 61_185

    t.test('the exit of the server is the exit of the launcher, and told as an event', async (t) => {
      for (const [script, code, event] of [
        ['exit 0', 0, { event: 'exit', code: 0, unclean: false }],
        ['exit 137', 137, { event: 'exit', code: 137, unclean: false }],
        ['kill -9 $$', 137, { event: 'exit', signal: 'SIGKILL', unclean: false }],
        ['kill -TERM $$', 143, { event: 'exit', signal: 'SIGTERM', unclean: false }],
        ['kill -SEGV $$', 139, { event: 'exit', signal: 'SIGSEGV', unclean: false }],
      ] as const) {
        const result = await launched(t, confined, shell(script), { uid })
        t.equal(result.code, code)
        t.same(result.status[1], event)
      }
    })

    t.test('the pid of the report is the server itself, in a session of its own', async (t) => {
      const running = launch(t, confined, shell('echo $$; read -r go'), { uid })
      const { pid } = await running.first()
      t.equal(await running.said('\n'), `${pid}\n`)
      t.same(childrenOf(running.pid), [pid])
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
      t.same(fields.slice(2, 4), [`${pid}`, `${pid}`])
      running.child.stdin.end('\n')
      t.equal((await running.done()).code, 0)
    })

    t.test('when the server ends, everything that it started ends', async (t) => {
      const running = launch(
        t,
        confined,
        shell(
          `sleep 1000 & echo $!; (setsid sh -c 'trap "" TERM HUP; echo $$; sleep 1000 & wait' &); sleep 0.1; echo ready; read -r go; exit 7`,
        ),
        { uid },
      )
      const pids = await pidsOf(running, 2)
      t.equal(pids.length, 2)
      running.child.stdin.end('\n')
      t.equal((await running.done()).code, 7)
      await gone(pids)
    })

    t.test(
      'a signal reaches the server; what ignores TERM is killed with its tree after the grace time',
      async (t) => {
        const polite = launch(
          t,
          confined,
          shell(
            'trap "echo term; exit 5" TERM; trap "echo usr" USR1; echo ready; while :; do sleep 0.05; done',
          ),
          { uid },
        )
        await polite.said('ready')
        process.kill(polite.pid, 'SIGUSR1')
        await polite.said('usr')
        process.kill(polite.pid, 'SIGTERM')
        t.match(await polite.done(), { code: 5, status: [{}, { event: 'exit', code: 5 }] })
        const started = performance.now()
        const stubborn = await withFamily(t, [...confined, 'grace 200'], uid, ({ pid }) =>
          process.kill(pid, 'SIGTERM'),
        )
        t.ok(performance.now() - started >= 200)
        t.same(stubborn.status[1], { event: 'exit', signal: 'SIGKILL', reason: 'grace', unclean: false })
      },
    )

    t.test('a second TERM, or QUIT, kills the tree at once', async (t) => {
      // Two that come before it looks are one.
      let again: NodeJS.Timeout | undefined
      t.teardown(() => clearInterval(again))
      const twice = await withFamily(t, [...confined, 'grace 60000'], uid, ({ pid, child }) => {
        again = setInterval(() => child.exitCode === null && process.kill(pid, 'SIGTERM'), 50)
      })
      clearInterval(again)
      t.same(twice.status[1], {
        event: 'exit',
        signal: 'SIGKILL',
        reason: 'terminated-again',
        unclean: false,
      })
      const quit = await withFamily(t, bare, uid, ({ pid }) => process.kill(pid, 'SIGQUIT'))
      t.same(quit.status[1], { event: 'exit', signal: 'SIGKILL', reason: 'killed', unclean: false })
      t.equal(quit.code, 137)
    })

    t.test(
      'each of whose ancestors adopts orphans, all end at once, and none is born meanwhile',
      async (t) => {
        // A limit only holds others than root: there the tree has an end of its own.
        const records = [...confined, 'limit.nproc 300', `fs.rx ${trees}`]
        const nest = [trees, 'nest', uid === 0 ? '150' : '100000']
        const running = launch(t, records, nest, { uid: counted })
        await running.said('ready')
        process.kill(running.pid, 'SIGQUIT')
        const { out, status } = await running.done()
        t.same(status[1], { event: 'exit', signal: 'SIGKILL', reason: 'killed', unclean: false })
        const levels = [...out.matchAll(/^level (\d+)$/gm)].map((match) => Number(match[1]))
        t.equal(levels.length > 0, uid !== 0)
        // One by one, each that dies would make room for another; a few may be made when other processes of the user end.
        t.ok(Math.max(0, ...levels) - (levels[0] ?? 0) < 50, `${levels}`)
      },
    )

    t.test('a bomb that goes off when its tree is stopped is stopped with it', async (t) => {
      // Whoever stops it may be held up by others that want the processors. Were they stopped one by one, it would be the same
      // each time.
      let fewest = Number.POSITIVE_INFINITY
      for (let round = 0; round < 8 && fewest >= 300; round++) {
        const counter = join(openFolder(t), 'counter')
        const running = launch(t, bare, [trees, 'bomb', '1500', '3000', counter], { uid })
        await running.said('ready')
        process.kill(running.pid, 'SIGQUIT')
        const { status } = await running.done()
        t.same(status[1], { event: 'exit', signal: 'SIGKILL', reason: 'killed', unclean: false })
        t.same(runningProgram(trees), [])
        fewest = Math.min(fewest, Number(readFileSync(counter).readBigInt64LE()))
      }
      t.ok(fewest < 300, `${fewest} more processes`)
    })

    t.test('a server makes children of its own, and no siblings', async (t) => {
      const program = compiled(t, 'attempts')
      const { out } = await launched(
        t,
        [...confined, `fs.rx ${program}`],
        [program, 'clone-parent', 'fork'],
        { uid },
      )
      t.same(outcomes(out), { 'clone-parent': constants.errno.EPERM, fork: 0 })
    })

    t.test('those that flee and those that wake the stopped end, too', async (t) => {
      const running = launch(
        t,
        [...confined, 'limit.nproc 100', `fs.rx ${trees}`],
        [trees, 'swarm', '4', '4'],
        { uid: counted },
      )
      await running.said('ready')
      process.kill(running.pid, 'SIGQUIT')
      const { status } = await running.done()
      t.same(status[1], { event: 'exit', signal: 'SIGKILL', reason: 'killed', unclean: false })
      t.same(runningProgram(trees), [])
    })

    t.test('when the sidecar closes its end of the status, the tree is killed', async (t) => {
      const { code } = await withFamily(t, confined, uid, (running) => running.abandon())
      t.equal(code, 137)
    })

    t.test(
      'when the supervisor is killed, the server is killed; when its parent dies, the whole tree',
      async (t) => {
        const running = launch(t, confined, shell('echo ready; exec sleep 1000'), { uid })
        await running.said('ready')
        const { pid } = await running.first()
        process.kill(running.pid, 'SIGKILL')
        await gone([pid])
        // The status goes to /dev/null here, so that nothing but the signal tells of the parent's death.
        const command = `exec ${launcher} exec -- /bin/sh -c 'sleep 1000 & echo $!; echo $$; echo ready; wait' 3<"$0" 4>/dev/null`
        const starts = `require('node:child_process').spawn('/bin/sh', ['-c', ${JSON.stringify(command)}, process.argv[1]],
        { stdio: ['ignore', 'inherit', 'inherit'], detached: true })`
        const parent = spawn(process.execPath, ['-e', starts, policyFile(t, bare)], {
          stdio: ['ignore', 'pipe', 'inherit'],
          env: { PATH: '/usr/bin:/bin' },
          ...(uid === process.getuid?.() ? {} : { uid, gid: uid }),
        })
        let out = ''
        parent.stdout.setEncoding('utf8').on('data', (text: string) => {
          out += text
        })
        await until(() => out.includes('ready'), 'it runs')
        const pids = pidsIn(out)
        t.equal(pids.length, 2)
        parent.kill('SIGKILL')
        await once(parent, 'close')
        await gone(pids)
      },
    )

    t.test(
      'only stdin, stdout and stderr are inherited; nothing is ignored or blocked; no capability is left',
      async (t) => {
        const leaked = openSync('/etc/passwd', 'r')
        // Without a pipe, whose ends would be the shell's own for a moment.
        const { out } = await launched(
          t,
          [...confined, 'proc all'],
          shell(
            'ls -m /proc/$$/fd; grep -E "^(SigBlk|SigIgn|CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs|Seccomp):" /proc/self/status; ulimit -c',
          ),
          { uid },
        )
        t.ok(leaked > 2)
        t.equal(
          out.replaceAll('\t', ' '),
          `0, 1, 2\nSigBlk: 0000000000000000\nSigIgn: 0000000000000000\n${['CapInh', 'CapPrm', 'CapEff', 'CapAmb'].map((set) => `${set}: 0000000000000000\n`).join('')}NoNewPrivs: 1\nSeccomp: 2\n0\n`,
        )
      },
    )

    t.test('the environment is what was given', async (t) => {
      const { out } = await launched(t, confined, ['/usr/bin/env', '-0'], {
        uid,
        env: { PATH: '/usr/bin:/bin', GIVEN: 'yes' },
      })
      const given = out.split('\0').filter((each) => each !== '')
      // The test runner adds its own to whatever is started here.
      t.same(given.filter((each) => !/^(TAP|_TAPJS|NODE_OPTIONS)/.test(each)).sort(), [
        'GIVEN=yes',
        'PATH=/usr/bin:/bin',
      ])
    })

    const noSetuid =
      process.getuid?.() === 0 && uid !== 0
        ? false
        : 'needs root for the setuid file, and another uid to run it'
    t.test('a setuid program has no privilege', { skip: noSetuid }, async (t) => {
      const program = join(openFolder(t), 'id')
      copyFileSync('/usr/bin/id', program)
      chmodSync(program, 0o4755)
      const plain = spawn(program, ['-u'], { uid, gid: uid, stdio: ['ignore', 'pipe', 'ignore'] })
      const [said] = await once(plain.stdout.setEncoding('utf8'), 'data')
      t.equal(said, '0\n', 'it is one without the launcher')
      t.equal((await launched(t, bare, [program, '-u'], { uid })).out, `${uid}\n`)
      t.equal(
        (await launched(t, [...confined, `fs.rx ${program}`], [program, '-u'], { uid })).out,
        `${uid}\n`,
      )
    })

    t.test(
      'the supervisor holds no end of the pipes: closed output and input are seen at once',
      async (t) => {
        const running = launch(t, confined, shell('exec 1>&- 2>&-; read -r line; exit 3'), { uid })
        await Promise.all([once(running.child.stdout, 'end'), once(running.child.stderr, 'end')])
        running.child.stdin.end('line\n')
        t.equal((await running.done()).code, 3)
        const deaf = launch(t, confined, shell('exec 0<&-; echo ready; sleep 1000'), { uid })
        await deaf.said('ready')
        deaf.child.stdin.write('x'.repeat(1 << 20))
        const [error] = await once(deaf.child.stdin, 'error')
        t.equal(error.code, 'EPIPE')
        process.kill(deaf.pid, 'SIGQUIT')
        await deaf.done()
      },
    )

    t.test(
      'nobody of the same uid reads the supervisor',
      { skip: uid === 0 ? 'root reads everything' : false },
      async (t) => {
        const running = launch(t, confined, shell('echo ready; read -r go'), { uid })
        await running.said('ready')
        const reader = spawn('/bin/cat', [`/proc/${running.pid}/environ`, `/proc/${running.pid}/maps`], {
          stdio: 'ignore',
          uid,
          gid: uid,
        })
        const [code] = await once(reader, 'close')
        t.equal(code, 1)
        running.child.stdin.end('\n')
        await running.done()
      },
    )
  })
}

t.test('nothing is started for a sidecar that is gone before the launcher can be told of it', async (t) => {
  const made = join(openFolder(t), 'made')
  const child = spawn(launcher, ['exec', '--', '/usr/bin/touch', made], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    env: { PATH: '/usr/bin:/bin' },
  })
  const [, , , policy, status] = child.stdio as unknown as [null, null, null, Writable, Readable]
  status.destroy()
  await once(status, 'close')
  policy.end(bare.map((record) => `${record}\0`).join(''))
  t.same(await once(child, 'close'), [126, null])
  t.notOk(existsSync(made))
})

t.test('a program that is not there is told with 127, one that cannot be run with 126', async (t) => {
  const missing = await launched(t, confined, ['no-such-program'])
  t.equal(missing.code, 127)
  t.same(missing.status, [
    {
      event: 'refused',
      mechanism: 'exec',
      reason: 'command not found: no-such-program',
      wayOut: 'name the program by its path, or set PATH',
    },
  ])
  t.equal(missing.err, 'mcp-sidecar-launcher: command not found: no-such-program\n')
  const denied = await launched(t, confined, ['/etc/passwd'])
  t.equal(denied.code, 126)
  t.match(denied.status[1], {
    event: 'refused',
    mechanism: 'exec',
    reason: '/etc/passwd: exec: Permission denied',
  })
})
