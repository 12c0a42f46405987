import { chmodSync, chownSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { fileFacts, homeFolders } from '../../src/sandbox/file-facts.ts'
import { isPersonal } from '../../src/sandbox/path-names.ts'
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
      ...{ homes: [at(home)], uid: process.getuid?.() },
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
  const around = { files: fileFacts(), protectedPaths: [], homes: ['/root'], uid: 0 }
  const where = { ...around, path: undefined, cwd: '/' }
  t.same(programOf([process.execPath, 'x.js'], { filesystem }, where), { grants: [], problems: [] })
})

const secret = { 'home/secret/id.js': '', 'home/secret/node_modules/key': '' }

t.test(
  'a node_modules that is a link, or in a folder of everybody, or of somebody else, is not given',
  async (t) => {
    const { at, grants, link, program } = disk(t, {
      ...secret,
      'repo/package.json': packaged,
      'repo/src/server.js': '',
      'mono/a/package.json': packaged,
      'mono/a/server.js': '',
      'work/node_modules/dep/index.js': '',
      'work/a/package.json': packaged,
      'work/a/server.js': '',
    })
    program('bin/node')
    link('home/secret', 'repo/node_modules')
    link('home/secret/node_modules', 'repo/src/node_modules')
    t.same(grants(['node', 'repo/src/server.js']), ['DIR/bin', 'DIR/repo'])
    link('home/secret', 'mono/node_modules')
    t.same(grants(['node', 'mono/a/server.js']), ['DIR/bin', 'DIR/mono/a'])
    const withModules = ['DIR/bin', 'DIR/work/a', 'DIR/work/node_modules']
    t.same(grants(['node', 'work/a/server.js']), withModules)
    t.same(
      grants(['node', 'work/a/server.js'], { home: 'work/home' }),
      withModules.slice(0, 2),
      'above a home folder',
    )
    t.same(grants(['node', 'work/a/server.js'], { home: 'work' }), withModules, 'in it')
    if (process.getuid?.() !== 0) return
    chownSync(at('work/node_modules'), 65_534, 65_534)
    t.same(grants(['node', 'work/a/server.js']), withModules.slice(0, 2), 'of somebody else')
    chownSync(at('work/a/server.js'), 65_534, 65_534)
    t.same(grants(['node', 'work/a/server.js']), withModules, 'of whose script it is')
  },
)

t.test('a link to a script elsewhere brings nothing of what is around its target', async (t) => {
  const { found, grants, link, program } = disk(t, {
    ...secret,
    'home/secret/tool.py': '#!/usr/bin/env python3.11\n',
    'repo/package.json': packaged,
    'repo/dist/server.js': '',
  })
  for (const name of ['bin/node', 'bin/python3.11', 'home/secret/tool']) program(name)
  link('home/secret/id.js', 'repo/server.js')
  link('home/secret/tool.py', 'repo/tool')
  link('home/secret/tool', 'repo/native')
  const refused = (name: string, target: string): string =>
    `DIR/repo/${name} is a symbolic link to DIR/home/secret/${target}: name that instead, or add DIR/home/secret to filesystem.read`
  t.same(found(['node', 'repo/server.js']), {
    grants: ['DIR/bin'],
    problems: [refused('server.js', 'id.js')],
  })
  t.same(grants(['node', 'repo/server.js'], { read: ['home/secret'] }), ['DIR/bin'], 'the profile has it')
  t.same(found(['repo/tool']), {
    grants: ['DIR/bin', 'DIR/home/secret/tool.py', 'DIR/repo'],
    problems: [refused('tool', 'tool.py')],
  })
  t.same(grants(['repo/native']), ['DIR/home/secret/tool', 'DIR/repo'], 'of an executable the file')
  link('repo/dist/server.js', 'repo/main.js')
  t.same(grants(['node', 'repo/main.js']), ['DIR/bin', 'DIR/repo'], 'in its package')
})

t.test('links by which programs are installed lead to all of them', async (t) => {
  const cli = '#!/usr/bin/env node\n'
  const { at, grants, link, program } = disk(t, {
    'app/package.json': packaged,
    'app/node_modules/server/package.json': packaged,
    'app/node_modules/server/cli.js': cli,
    'app/packages/own/package.json': packaged,
    'app/packages/own/cli.js': cli,
    'home/.nvm/v22/lib/node_modules/server/package.json': packaged,
    'home/.nvm/v22/lib/node_modules/server/cli.js': cli,
    'home/.pipx/venvs/tool/pyvenv.cfg': '',
  })
  for (const name of ['bin/node', 'bin/python3.11']) program(name)
  const python = 'home/.pipx/venvs/tool/bin'
  link('bin/python3.11', `${python}/python`)
  writeFileSync(at(`${python}/tool`), `#!${at(python)}/python\n`, { mode: 0o755 })
  const modules = 'DIR/app/node_modules'
  link('app/node_modules/server/cli.js', 'app/node_modules/.bin/server')
  t.same(grants(['app/node_modules/.bin/server']), [modules, 'DIR/bin'])
  t.same(grants(['node', 'app/node_modules/.bin/server']), [modules, 'DIR/bin'])
  link('app/packages/own/cli.js', 'app/node_modules/.bin/own')
  t.same(grants(['app/node_modules/.bin/own']), [modules, 'DIR/app/packages/own', 'DIR/bin'], 'a workspace')
  link('home/.nvm/v22/lib/node_modules/server/cli.js', 'home/.nvm/v22/bin/server')
  t.same(grants([at('home/.nvm/v22/bin/server')]), [
    'DIR/bin',
    'DIR/home/.nvm/v22/bin',
    'DIR/home/.nvm/v22/lib/node_modules',
  ])
  link(`${python}/tool`, 'home/.local/bin/tool')
  t.same(grants([at('home/.local/bin/tool')]), [
    'DIR/bin',
    'DIR/home/.local/bin',
    'DIR/home/.pipx/venvs/tool',
  ])
})

t.test(
  'the name of a package is found wherever it stands, and what cannot be told ends the search',
  async (t) => {
    const late = JSON.stringify({ scripts: { build: 'x'.repeat(8192) }, name: 'late' })
    const { grants, program } = disk(t, {
      'project/package.json': packaged,
      'project/.env': '',
      'project/late/package.json': late,
      'project/late/server.js': '',
      'project/huge/package.json': JSON.stringify({ x: 'x'.repeat(1024 ** 2) }),
      'project/huge/server.js': '',
      'project/broken/package.json': '{',
      'project/broken/server.js': '',
      'project/mine/package.json': JSON.stringify({ author: { name: 'x' } }),
      'project/mine/server.js': '',
      'project/node_modules/dep/package.json': '{}',
      'project/node_modules/dep/server.js': '',
    })
    program('bin/node')
    const of = (name: string) => grants(['node', `project/${name}/server.js`])
    const modules = 'DIR/project/node_modules'
    for (const name of ['late', 'huge', 'broken'])
      t.same(of(name), ['DIR/bin', `DIR/project/${name}`, modules], name)
    t.same(of('mine'), ['DIR/bin', 'DIR/project'], 'a name elsewhere in it is none')
    t.same(of('node_modules/dep'), ['DIR/bin', modules], 'a package without a name')
  },
)

t.test('a first line gives what is around an interpreter, and of anything else the file', async (t) => {
  const { at, grants, link, program } = disk(t, { 'home/secret/key': '', 'home/secret/x.sh': '' })
  for (const name of ['home/secret/tool', 'home/secret/env', 'home/secret/perl', 'bin/other']) program(name)
  const script = (line: string): string => {
    writeFileSync(at('repo/run'), line, { mode: 0o755 })
    return 'repo/run'
  }
  mkdirSync(at('repo'))
  const of = (line: string) => grants([script(line)])
  t.same(of(`#!${at('home/secret/tool')}\n`), ['DIR/home/secret/tool', 'DIR/repo'])
  t.same(of(`#!/usr/bin/env ${at('home/secret/tool')}\n`), ['DIR/home/secret/tool', 'DIR/repo'])
  t.same(of('#!/bin/env other\n'), ['DIR/bin/other', 'DIR/repo'])
  t.same(of(`#!${at('home/secret/env')} other\n`), ['DIR/home/secret/env', 'DIR/repo'], 'only the system’s')
  t.same(of(`#!\n ${at('home/secret/tool')}\n`), ['DIR/repo'], 'no other line')
  t.same(of(`#! \t${at('home/secret/perl')}\n`), ['DIR/home/secret', 'DIR/repo'])
  link('home/secret/tool', 'repo/perl')
  t.same(
    of(`#!${at('repo/perl')}\n`),
    ['DIR/home/secret/tool', 'DIR/repo'],
    'what it is, not what it is called',
  )
})

t.test('what lies where the server may write brings nothing from elsewhere', async (t) => {
  const { at, found, grants, link, program } = disk(t, {
    'data/venv/pyvenv.cfg': '',
    'out/lib/python3.12/os.py': '',
    'out/server.js': '',
  })
  for (const name of ['out/bin/python3.12', 'data/bin/native', 'bin/node', 'bin/perl']) program(name)
  const write = ['data']
  t.same(grants(['data/bin/native'], { write }), ['DIR/data/bin'])
  const beyond = (file: string, what: string): string =>
    `DIR/${file} was found where the server may write, so that ${what} is not given with it: add that to filesystem.read`
  link('out/bin/python3.12', 'data/venv/bin/python')
  t.same(found(['data/venv/bin/python'], { write }), {
    grants: ['DIR/data/venv'],
    problems: [beyond('data/venv/bin/python', 'DIR/out/bin and DIR/out/lib')],
  })
  writeFileSync(at('data/run'), '#!/usr/bin/env perl\n', { mode: 0o755 })
  t.same(found(['data/run'], { write }), {
    grants: ['DIR/data'],
    problems: [beyond('bin/perl', 'DIR/bin')],
  })
  link('out', 'data/link')
  t.same(found(['data/link/bin/python3.12'], { write }).grants, [], 'nor through a link on the way')
  link('data/link', 'alias')
  t.same(found(['alias/bin/python3.12'], { write }).grants, [], 'that another link leads to')
  t.same(found(['node', 'data/link/server.js'], { write }), {
    grants: ['DIR/bin'],
    problems: [
      'DIR/data/link/server.js is a symbolic link to DIR/out/server.js: name that instead, or add DIR/out to filesystem.read',
    ],
  })
})

t.test('interpreters by the name that they are called by, and by the name of their file', async (t) => {
  const { grants, link, program } = disk(t, { 'app/server.js': '', 'app/server.py': '', 'app/run.sh': '' })
  for (const name of ['node-22', 'nodejs20', 'node-v', 'python3.13t', 'python3.12-dbg', 'busybox'])
    program(`bin/${name}`)
  link('bin/node-v', 'bin/node')
  link('bin/busybox', 'bin/sh')
  const yes = ['DIR/app', 'DIR/bin']
  for (const name of ['node-22', 'nodejs20', 'node']) t.same(grants([name, 'app/server.js']), yes, name)
  for (const name of ['python3.13t', 'python3.12-dbg']) t.same(grants([name, 'app/server.py']), yes, name)
  t.same(grants(['sh', 'app/run.sh']), yes)
  for (const name of ['node-v', 'busybox']) t.same(grants([name, 'app/server.js']), ['DIR/bin'], name)
})

t.test('personal folders are never given as a whole, and what lies deeper in them is', async (t) => {
  const homes = ['/data/me']
  for (const folder of [
    ...['/data/me/Documents', '/data/me/.config', '/home/you/.ssh', '/home/you/Downloads', '/root/.cache'],
    ...['/mnt', '/mnt/c', '/mnt/c/Users', '/mnt/c/Users/me', '/mnt/c/Users/me/Documents', '/media/me'],
    ...['/media/me/disk', '/run/media/me', '/run/user', '/run/user/1000', '/data', '/data/me'],
  ])
    t.ok(isPersonal(folder, homes), folder)
  for (const folder of [
    ...['/data/me/.config/server', '/data/me/app', '/mnt/c/app', '/mnt/c/Users/me/app', '/opt/.venv'],
    ...['/run/user/1000/server', '/media/me/disk/app', '/srv/Documents'],
  ])
    t.notOk(isPersonal(folder, homes), folder)
  const { grants, program } = disk(t, { 'home/.venv/pyvenv.cfg': '', 'home/.venv/lib/x.py': '' })
  program('home/.venv/bin/python3.11')
  program('home/Documents/tool')
  t.same(grants(['home/.venv/bin/python3.11', '-m', 'x']), [
    'DIR/home/.venv/bin',
    'DIR/home/.venv/lib',
    'DIR/home/.venv/pyvenv.cfg',
  ])
  t.same(grants(['home/Documents/tool']), ['DIR/home/Documents/tool'])
})

t.test('home folders are those of HOME and of the system, links followed', async (t) => {
  const { at, link } = disk(t, { 'real/me/x': '', 'disk/papers/x': '' })
  link('real/me', 'me')
  link('disk/papers', 'real/me/Documents')
  const own = [homedir(), realpathSync(homedir())]
  const all = homeFolders(`${at('me')}/`)
  for (const each of [at('me'), at('real/me'), at('disk/papers'), ...own]) t.ok(all.includes(each), each)
  for (const home of [undefined, '', 'relative']) t.same(homeFolders(home), [...new Set(own)], String(home))
})
