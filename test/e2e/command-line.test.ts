/** What the command line says of what it cannot mean. */
import { spawnSync } from 'node:child_process'
import { PassThrough } from 'node:stream'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { runCli } from '../../src/cli.ts'
import { scriptedCommand } from '../support/sidecar.ts'

const program = fileURLToPath(new URL('../../dist/bin/mcp-sidecar.js', import.meta.url))

function told(...words: string[]): { status: number | null; stderr: string } {
  const { status, stderr } = spawnSync(process.execPath, [program, ...words], { encoding: 'utf8' })
  return { status, stderr }
}

t.test('a flag that is given twice is refused: one of the two would not count', async (t) => {
  t.same(told('--config', 'a.yaml', '--config', 'b.yaml', '--', 'cat'), {
    status: 2,
    stderr: 'mcp-sidecar: --config: is given twice, and one of them would not count\n',
  })
  t.match(told('--permissions', 'none', '--permissions=full-access', '--', 'cat'), { status: 2 })
  const { stderr } = told('--config', 'a.yaml', '--config', 'a.yaml', '--', 'cat')
  t.notMatch(stderr, /given twice/, 'the same one may be said again')
})

t.test('a command that is misspelt is told from a server', async (t) => {
  t.match(told('validat'), { status: 2, stderr: 'unexpected validat; did you mean validate?' })
  t.match(told('node', 'server.js'), {
    status: 2,
    stderr: 'the server goes after --, as in: mcp-sidecar -- node server.js',
  })
})

t.test('a profile that is not there is told by its name', async (t) => {
  const { status, stderr } = told('--permissions', './nowhere.yaml', '--', 'cat')
  t.equal(status, 2)
  t.match(stderr, /--permissions: the profile \S*nowhere\.yaml does not exist \(looked in /)
})

t.test('who is told that it listens may send a signal at once', async (t) => {
  const signals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const
  // The runner of tests listens to them, too.
  const before = signals.map((signal) => process.rawListeners(signal))
  const added = () =>
    signals.map((signal, i) => process.rawListeners(signal).filter((each) => !before[i]?.includes(each)))
  const flags = ['--port', '0', '--admin-port', '0', '--log-format', 'pretty', '--', ...scriptedCommand]
  for (const argv of [flags, ['learn', ...flags]]) {
    let listeners: number[] | undefined
    const output = new PassThrough().on('data', (chunk: Buffer) => {
      if (listeners !== undefined || !/http:\S+\/mcp/.test(chunk.toString())) return
      listeners = added().map(({ length }) => length)
      // With none it would end at once, without a word.
      const [onSigterm] = added()[0] ?? []
      if (onSigterm === undefined) process.emit('uncaughtException', new Error('nobody listens to SIGTERM'))
      else onSigterm.call(process, 'SIGTERM')
    })
    const { env, stdin } = process
    const terminal = { argv, env, cwd: process.cwd(), stdout: output, stderr: output, stdin }
    t.equal(await runCli(terminal), 0)
    t.same(listeners, [1, 1, 1])
    for (const [i, signal] of signals.entries())
      for (const each of added()[i] ?? []) process.removeListener(signal, each as () => void)
  }
})
