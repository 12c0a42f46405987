// Builds the launcher, src/launcher/*.c, into dist/launcher: one static program, and the same with the seams of its tests.
// Without a C compiler it says so and succeeds: the sidecar then refuses to enforce a profile.
// CC: the compiler, default cc. LAUNCHER_OUT: another folder, for cross builds.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const sources = join(root, 'src', 'launcher')
const out = process.env.LAUNCHER_OUT ?? join(root, 'dist', 'launcher')
const compiler = process.env.CC || 'cc'

// Warnings are errors, as a warning in code that guards a boundary is one. No position-independent code: a static
// program that is one would relocate itself at each start.
const flags = [
  '-std=gnu11',
  '-D_GNU_SOURCE=',
  '-O2',
  '-static',
  '-s',
  '-fno-pie',
  '-no-pie',
  '-fstack-protector-strong',
  '-D_FORTIFY_SOURCE=2',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-Wconversion',
  '-Wshadow',
  '-Wstrict-prototypes',
  '-Wmissing-prototypes',
]

const files = readdirSync(sources)
  .filter((name) => /\.[ch]$/.test(name))
  .sort()
const hash = createHash('sha256').update(JSON.stringify([compiler, flags]))
for (const name of files) hash.update(`${name}\0`).update(readFileSync(join(sources, name))).update('\0')
const digest = hash.digest('hex')

function upToDate(binary) {
  try {
    readFileSync(join(out, binary))
    return readFileSync(join(out, `${binary}.sources`), 'utf8') === digest
  } catch {
    return false
  }
}

// Built beside and renamed: a launcher that is running, or being started, is never half written.
function build(binary, extra) {
  if (upToDate(binary)) return
  const fresh = join(out, `${binary}.${process.pid}`)
  const inputs = files.filter((name) => name.endsWith('.c')).map((name) => join(sources, name))
  const result = spawnSync(compiler, [...flags, ...extra, '-o', fresh, ...inputs], { stdio: ['ignore', 'inherit', 'inherit'] })
  if (result.status !== 0) process.exit(result.status || 1)
  renameSync(fresh, join(out, binary))
  writeFileSync(join(out, `${binary}.sources`), digest)
}

if (process.platform !== 'linux') {
  console.log('launcher: not built, the sandbox is for Linux')
} else if (spawnSync(compiler, ['--version'], { stdio: 'ignore' }).status !== 0) {
  console.log(
    `launcher: not built, there is no C compiler (${compiler}). Permission profiles cannot be enforced by this build; install gcc and the C library's headers, and build again`,
  )
} else {
  mkdirSync(out, { recursive: true })
  build('mcp-sidecar-launcher', [])
  build('mcp-sidecar-launcher-test', ['-DTEST_SEAMS'])
}
