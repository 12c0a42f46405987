import { chmodSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { fileFacts } from '../../src/sandbox/file-facts.ts'
import { programOf } from '../../src/sandbox/program.ts'
import { openFolder } from '../support/launcher.ts'
import { profile } from '../support/profiles.ts'

interface Given {
  readonly read?: readonly string[]
  readonly write?: readonly string[]
  readonly own?: readonly string[]
  readonly cwd?: string
  readonly home?: string
}

/** A folder outside any package, with files of these texts in it; programs are those with a first line of their own. */
function disk(t: Test, files: Readonly<Record<string, string>>) {
  const root = realpathSync(openFolder(t))
  const at = (path: string): string => (path.startsWith('/') ? path : join(root, path))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(at(path)), { recursive: true })
    writeFileSync(at(path), text)
    if (text.startsWith('#!')) chmodSync(at(path), 0o755)
  }
  const found = (command: readonly string[], given: Given = {}) => {
    const { read = [], write = [], own = [], cwd = '.', home = 'home' } = given
    const filesystem = {
      scope: 'granted',
      read: read.map((path) => ({ path: at(path), optional: false, execute: false })),
      write: write.map((path) => ({ path: at(path), optional: false })),
      proc: 'self',
    } as const
    const { grants, problems } = programOf(command, profile({ filesystem }), {
      files: fileFacts(),
      protectedPaths: own.map(at),
      home: at(home),
      path: `${at('bin')}:relative:/usr/bin`,
      cwd: at(cwd),
    })
    const short = (text: string): string => text.replaceAll(root, 'DIR')
    return { grants: grants.map(short).sort(), problems: problems.map(({ message }) => short(message)) }
  }
  /** A program that is what its name says. */
  const program = (path: string): void => {
    mkdirSync(dirname(at(path)), { recursive: true })
    writeFileSync(at(path), '', { mode: 0o755 })
  }
  const grants = (command: readonly string[], given?: Given): readonly string[] => {
    const { grants: all, problems } = found(command, given)
    t.same(problems, [])
    return all
  }
  const link = (to: string, path: string): void => {
    mkdirSync(dirname(at(path)), { recursive: true })
    symlinkSync(at(to), at(path))
  }
  return { at, found, grants, program, link }
}

const packaged = JSON.stringify({ name: 'a-server' })

t.test(
  'an executable has its folder, links followed; one in a folder of everybody is given alone',
  async (t) => {
    const { grants, link, program } = disk(t, {})
    program('opt/server/bin/server')
    program('home/tool')
    program('bin/other')
    link('opt/server/bin/server', 'bin/server')
    t.same(grants(['server']), ['DIR/bin', 'DIR/opt/server/bin'])
    t.same(grants(['./server'], { cwd: 'bin' }), ['DIR/bin', 'DIR/opt/server/bin'])
    t.same(grants(['home/tool']), ['DIR/home/tool'])
    t.same(grants(['missing']), [])
    t.same(grants(['/usr/bin/env', 'x']), [], 'what every program has needs no grant')
  },
)

t.test('a script of node has its package, and the folders of packages that it may load from', async (t) => {
  const { at, grants, link, program } = disk(t, {
    'work/package.json': packaged,
    'work/node_modules/dep/package.json': packaged,
    'work/packages/server/package.json': packaged,
    'work/packages/server/dist/package.json': '{"type": "module"}',
    'work/packages/server/dist/index.js': '',
    'work/packages/server/config.txt': '',
    'plain/tool.mjs': '',
    'home/package.json': '{"name": "mine", "type": "module"}',
    'home/node_modules/x/i.js': '',
    'home/own.js': '',
    'home/deep/own.js': '',
  })
  program('bin/node')
  const bin = 'DIR/bin'
  const server = [bin, 'DIR/work/node_modules', 'DIR/work/packages/server']
  t.same(grants(['node', 'work/packages/server/dist/index.js', 'work/packages/server/config.txt']), server)
  t.same(grants(['node', at('work/packages/server/dist/index.js')]), server)
  t.same(grants(['node', 'dist/index'], { cwd: 'work/packages/server' }), server, 'without its ending')
  t.same(grants(['node', '.'], { cwd: 'work/packages/server/dist' }), server, 'a folder')
  link('work/packages/server/dist/index.js', 'bin/linked.js')
  t.same(grants(['node', 'bin/linked.js']), server, 'node follows links, too')
  t.same(grants(['node', 'plain/tool.mjs']), [bin, 'DIR/plain'], 'no package: its folder')
  const modules = 'DIR/home/node_modules'
  t.same(grants(['node', 'home/own.js']), [bin, modules, 'DIR/home/own.js', 'DIR/home/package.json'])
  t.same(grants(['node', 'home/deep/own.js']), [bin, 'DIR/home/deep', modules, 'DIR/home/package.json'])
  t.same(grants(['node', 'plain/missing.mjs']), [bin])
})

t.test('options: which argument is the script', async (t) => {
  const { found, grants, program } = disk(t, { 'a/pre.mjs': '', 'b/main.mjs': '', 'c/data.csv': '' })
  for (const name of ['node', 'python3.11', 'bash', 'deno', 'perl']) program(`bin/${name}`)
  const [script, pre] = ['b/main.mjs', 'a/pre.mjs']
  const yes = ['DIR/b', 'DIR/bin']
  for (const words of [
    ['node', '--enable-source-maps', '--max-old-space-size=100', script],
    ['node', '--import', pre, '-r', pre, script],
    ['node', `--import=${pre}`, '--', script, pre],
    ['python3.11', '-u', '-W', 'ignore', script],
    ['bash', '-eu', script],
    ['deno', 'run', '-A', '--allow-net=example.com', script],
    ['perl', '-w', script],
  ])
    t.same(grants(words), yes, words.join(' '))
  for (const words of [
    ['node', '-e', '1', script],
    ['node'],
    ['node', '-', script],
    ['python3.11', '-m', 'server', script],
    ['python3.11', '-um', 'server', script],
    ['bash', '-c', script],
    ['deno', 'task', script],
  ])
    t.same(grants(words), ['DIR/bin'], words.join(' '))
  t.same(found(['node', '--new-option', pre, script]), {
    grants: ['DIR/bin'],
    problems: [
      'it cannot be told whether DIR/a/pre.mjs is what node runs or the value of --new-option: write --new-option=VALUE, or add DIR/a to filesystem.read',
    ],
  })
  t.same(grants(['node', '--new-option', pre, script], { read: ['a'] }), ['DIR/bin'], 'the profile has it')
  t.same(grants(['node', '--new-option', 'no-file', script]), ['DIR/bin'])
})

t.test('python has its virtual environment, and its library where it is not the system’s', async (t) => {
  const { grants, link, program } = disk(t, {
    'app/.venv/pyvenv.cfg': '',
    'app/main.py': '',
    'uv/cpython/lib/python3.12/os.py': '',
  })
  program('uv/cpython/bin/python3.12')
  program('app/.venv/bin/tool')
  link('uv/cpython/bin/python3.12', 'app/.venv/bin/python')
  t.same(grants(['app/.venv/bin/python', 'app/main.py']), [
    'DIR/app',
    'DIR/uv/cpython/bin',
    'DIR/uv/cpython/lib',
  ])
  t.same(grants(['app/.venv/bin/python', '-m', 'server']), [
    'DIR/app/.venv',
    'DIR/uv/cpython/bin',
    'DIR/uv/cpython/lib',
  ])
})

t.test('a script that is the command brings the interpreter of its first line', async (t) => {
  const { at, grants, link, program } = disk(t, {
    'lib/node_modules/server/package.json': packaged,
    'lib/node_modules/server/dist/cli.js': '#!/usr/bin/env -S node\n',
    'odd/script': '#!/usr/bin/env\n',
  })
  program('node/bin/node')
  link('node/bin/node', 'bin/node')
  link('lib/node_modules/server/dist/cli.js', 'bin/server')
  t.same(grants(['server', 'x']), ['DIR/bin', 'DIR/lib/node_modules', 'DIR/node/bin'])
  t.same(grants([at('odd/script')]), ['DIR/odd'])
})

t.test('what the profile gives already is not widened, and what is the sidecar’s stays closed', async (t) => {
  const { found, grants, program } = disk(t, {
    'app/package.json': packaged,
    'app/server.js': '',
    'app/conf.yaml': '',
    'app/token.js': '',
  })
  program('bin/node')
  t.same(grants(['node', 'app/server.js'], { read: ['app/server.js'] }), ['DIR/bin'])
  t.same(
    grants(['node', 'app/server.js'], { write: ['app'] }),
    ['DIR/bin'],
    'nor made executable where it is written',
  )
  const beside = grants(['node', 'app/server.js'], { own: ['app/conf.yaml'] })
  t.same(beside, ['DIR/app', 'DIR/bin'], 'the launcher leaves it out')
  for (const [own, file] of [
    ['app', 'app/server.js'],
    ['app/token', 'app/token.js'],
  ] as const)
    t.same(found(['node', file], { own: [own] }).problems, [
      `the server's program DIR/${file} belongs to DIR/${own}, which is the sidecar's: move one of them`,
    ])
})

t.test('with all files open there is nothing to give', async (t) => {
  const filesystem = { scope: 'all', read: [], write: [], proc: 'all' } as const
  const around = { files: fileFacts(), protectedPaths: [], home: '/root', path: undefined, cwd: '/' }
  t.same(programOf([process.execPath, 'x.js'], { filesystem }, around), { grants: [], problems: [] })
})
