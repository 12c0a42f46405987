/** What the command line says of what it cannot mean. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

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
