import { spawnSync } from 'node:child_process'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { commandProblem } from '../../src/upstream/command.ts'

function folderOf(t: Test): string {
  const folder = t.testdir({
    bin: { tool: '#!/bin/sh\n', plain: 'text', nested: {} },
    other: { tool: 'not executable' },
  })
  chmodSync(join(folder, 'bin', 'tool'), 0o755)
  chmodSync(join(folder, 'bin', 'plain'), 0o644)
  chmodSync(join(folder, 'other', 'tool'), 0o644)
  return folder
}

t.test('a program in PATH, or at a path, can be started', async (t) => {
  const folder = folderOf(t)
  const bin = join(folder, 'bin')
  t.equal(commandProblem('tool', '/', bin), undefined)
  t.equal(commandProblem('tool', '/', `/nonexistent:${bin}`), undefined)
  t.equal(commandProblem(join(bin, 'tool'), '/', undefined), undefined, 'an absolute path needs no PATH')
  t.equal(
    commandProblem('./tool', bin, undefined),
    undefined,
    'a relative one counts from the server’s folder',
  )
  t.equal(commandProblem('bin/tool', folder, '/nonexistent'), undefined)
  t.equal(commandProblem('../bin/tool', join(folder, 'other'), undefined), undefined)
  t.equal(commandProblem('tool', folder, 'bin'), undefined, 'a relative folder in PATH')
  t.equal(commandProblem('tool', bin, ''), undefined, 'an empty PATH is the server’s folder')
  t.equal(commandProblem('tool', bin, ':/nonexistent'), undefined, 'and so is an empty part of it')
})

t.test('the first program that may be executed is the one', async (t) => {
  const folder = folderOf(t)
  t.equal(commandProblem('tool', folder, 'other:bin'), undefined)
})

t.test('a program that is not there is named, with where it was looked for', async (t) => {
  const folder = folderOf(t)
  t.equal(commandProblem('none', folder, '/a:/b'), 'there is no program none in PATH (/a:/b)')
  t.equal(commandProblem('./none', folder, '/a'), `there is no file ${join(folder, 'none')}`)
  t.equal(commandProblem('/nonexistent/x', folder, '/a'), 'there is no file /nonexistent/x')
  t.equal(commandProblem('bin/tool/x', folder, undefined), `there is no file ${join(folder, 'bin/tool/x')}`)
})

t.test('a folder or a file that may not be executed is no program', async (t) => {
  const folder = folderOf(t)
  const bin = join(folder, 'bin')
  t.equal(commandProblem(bin, '/', undefined), `${bin} is not a file`)
  t.equal(commandProblem('nested', '/', bin), `there is no program nested in PATH (${bin})`)
  t.equal(commandProblem('./plain', bin, undefined), `${join(bin, 'plain')} may not be executed`)
  t.equal(commandProblem('plain', '/', bin), `${join(bin, 'plain')} may not be executed`)
})

t.test('the name of no program is none', async (t) => {
  const folder = folderOf(t)
  t.type(commandProblem('', folder, join(folder, 'bin')), 'string')
  t.type(commandProblem('.', folder, join(folder, 'bin')), 'string')
  t.type(commandProblem('..', folder, join(folder, 'bin')), 'string')
})

t.test('it agrees with what happens when the program is started', async (t) => {
  const folder = folderOf(t)
  const bin = join(folder, 'bin')
  for (const path of [bin, '', ':/nonexistent', '/nonexistent', 'bin', undefined]) {
    for (const [file, cwd] of [
      ['tool', bin],
      ['tool', folder],
      ['sh', folder],
      ['./tool', bin],
    ] as const) {
      const env = path === undefined ? {} : { PATH: path }
      const started = spawnSync(file, ['-c', 'exit'], { cwd, env }).error === undefined
      const name = `${file} from ${cwd === bin ? 'bin' : 'above'} with PATH ${path ?? 'not set'}`
      t.equal(commandProblem(file, cwd, path) === undefined, started, name.replaceAll(folder, ''))
    }
  }
})

t.test('a script is told from its interpreter, which the kernel does not do', async (t) => {
  const folder = t.testdir({
    gone: '#!/nonexistent/python -u\n',
    windows: '#!/bin/sh\r\n',
    env: '#! /usr/bin/env sh\n',
    relative: '#!./env\n',
  })
  for (const name of ['gone', 'windows', 'env', 'relative']) chmodSync(join(folder, name), 0o755)
  const problem = (name: string): string | undefined => commandProblem(`./${name}`, folder, undefined)
  t.equal(
    problem('gone'),
    `${join(folder, 'gone')} is a script for "/nonexistent/python", which does not exist`,
  )
  t.equal(
    problem('windows'),
    `${join(folder, 'windows')} is a script for "/bin/sh\\r", which does not exist: its lines end as on Windows`,
  )
  t.equal(problem('env'), undefined)
  t.equal(problem('relative'), undefined, 'counts from the server’s folder')
})

t.test('a script that the kernel starts, or a shell in its place, is one that starts', async (t) => {
  const folder = t.testdir({ schön: { sh: t.fixture('symlink', '/bin/sh') } })
  const scripts = {
    letters: `#!${join(folder, 'schön', 'sh')}\nexit\n`,
    long: `#!/${'long/'.repeat(60)}sh\nexit\n`,
    nul: '#!/bin/sh\0 \nexit\n',
    short: '#!/bin/sh',
  }
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(folder, name), text, { mode: 0o755 })
    t.equal(spawnSync(`./${name}`, { cwd: folder }).error, undefined, name)
    t.equal(commandProblem(`./${name}`, folder, undefined), undefined, name)
  }
})
