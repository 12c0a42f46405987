import { spawnSync } from 'node:child_process'
import { cpSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { launcher, noLauncher, openFolder } from '../support/launcher.ts'

const script = fileURLToPath(new URL('../../scripts/build-launcher.mjs', import.meta.url))

const build = (out: string, env: Readonly<Record<string, string>> = {}) =>
  spawnSync(process.execPath, [script], {
    encoding: 'utf8',
    env: { ...process.env, LAUNCHER_OUT: out, ...env },
  })

t.test(
  'without a C compiler the build says so and goes on',
  { skip: process.platform === 'linux' ? false : 'Linux only' },
  async (t) => {
    const out = openFolder(t)
    const { status, stdout } = build(out, { CC: 'no-such-compiler' })
    t.equal(status, 0)
    t.match(
      stdout,
      /^launcher: not built, no static C program can be made with no-such-compiler\. .*cannot be enforced/,
    )
    t.same(readdirSync(out), [])
  },
)

t.test(
  'what is built is built again only when a source has changed',
  { skip: noLauncher ?? false },
  async (t) => {
    const out = openFolder(t)
    cpSync(dirname(launcher), out, { recursive: true, preserveTimestamps: true })
    const names = ['mcp-sidecar-launcher', 'mcp-sidecar-launcher-test']
    const times = (): number[] => names.map((name) => statSync(join(out, name)).mtimeMs)
    const before = times()
    t.equal(build(out).status, 0)
    t.same(times(), before)
    writeFileSync(join(out, 'mcp-sidecar-launcher.sources'), 'of something else')
    t.equal(build(out).status, 0)
    t.not(times()[0], before[0])
    t.equal(times()[1], before[1])
    t.same(readdirSync(out).sort(), [...names, ...names.map((name) => `${name}.sources`)].sort())
    const { size, mode } = statSync(join(out, 'mcp-sidecar-launcher'))
    t.ok(size < 1 << 20, `${size} bytes`)
    t.equal(mode & 0o111, 0o111)
    t.match(
      spawnSync(join(out, 'mcp-sidecar-launcher'), ['--version'], { encoding: 'utf8' }).stdout,
      /^mcp-sidecar-launcher /,
    )
  },
)
