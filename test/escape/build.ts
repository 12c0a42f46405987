/** Compiles the programs of the attempts, once for all test files that run at the same time. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** ESCAPE_FIXTURES names the folder where this file does not lie beside it, as in a container. */
export const fixtures =
  process.env['ESCAPE_FIXTURES'] ?? fileURLToPath(new URL('../fixtures/escape/', import.meta.url))

/** ESCAPE_SIDECAR: where it is installed, as in a container. */
export const built =
  process.env['ESCAPE_SIDECAR'] ?? fileURLToPath(new URL('../../dist/bin/mcp-sidecar.js', import.meta.url))

export interface Programs {
  readonly attempts: string
  readonly victim: string
}

/** Programs of one file; all others together are the attempts. */
const alone = ['victim.c', 'masked-launcher.c']

/**
 * ESCAPE_PROGRAMS names a folder that has them already: for machines without a compiler, such as a container.
 *
 * @throws where there is no C compiler: `cc`, or what CC names
 */
export function buildPrograms(): Programs {
  const ready = process.env['ESCAPE_PROGRAMS']
  if (ready !== undefined) return programsIn(ready)
  const sources = readdirSync(fixtures).filter((name) => /\.[ch]$/.test(name))
  const digest = createHash('sha256')
  for (const name of sources.toSorted()) digest.update(readFileSync(join(fixtures, name)))
  const uid = process.getuid?.() ?? 0
  const folder = join(tmpdir(), `mcp-sidecar-escape-build-${uid}-${digest.digest('hex').slice(0, 16)}`)
  if (!existsSync(folder) || statSync(folder).uid !== uid) {
    const fresh = mkdtempSync(join(tmpdir(), 'mcp-sidecar-escape-build-'))
    compileInto(fresh)
    chmodSync(fresh, 0o755)
    try {
      renameSync(fresh, folder)
    } catch {
      // Another test file was quicker, or the name is somebody else's.
      process.once('exit', () => rmSync(fresh, { recursive: true, force: true }))
      return programsIn(fresh)
    }
  }
  return programsIn(folder)
}

const programsIn = (folder: string): Programs => ({
  attempts: join(folder, 'attempts'),
  victim: join(folder, 'victim'),
})

const compiler = process.env['CC'] ?? 'cc'

/** Static, so that they run in any container. */
export function compileInto(folder: string): void {
  mkdirSync(folder, { recursive: true })
  const themes = readdirSync(fixtures).filter((name) => name.endsWith('.c') && !alone.includes(name))
  const compile = (out: string, sources: readonly string[]): void => {
    const options = ['-O1', '-static', '-pthread', '-Wall', '-Wextra', '-Werror', '-o', join(folder, out)]
    execFileSync(compiler, [...options, ...sources.map((name) => join(fixtures, name))], { stdio: 'pipe' })
  }
  compile('attempts', themes)
  compile('victim', ['victim.c'])
}

/**
 * A copy of what was built.
 *
 * @param folder does not exist yet
 * @returns the program to start
 */
export function copiedBuild(dist: string, folder: string): string {
  cpSync(dist, join(folder, 'dist'), { recursive: true })
  cpSync(join(dist, '..', 'package.json'), join(folder, 'package.json'))
  symlinkSync(join(dist, '..', 'node_modules'), join(folder, 'node_modules'))
  return join(folder, 'dist', 'bin', 'mcp-sidecar.js')
}

/**
 * A copy of what was built whose launcher sees less of the kernel than there is.
 *
 * @param folder does not exist yet
 * @param record of the launcher's test build, such as `test.abi 3`
 * @returns the program to start
 */
export function maskedBuild(dist: string, folder: string, record: string): string {
  const program = copiedBuild(dist, folder)
  const launchers = join(folder, 'dist', 'launcher')
  const real = join(launchers, 'mcp-sidecar-launcher-test')
  const out = join(launchers, 'mcp-sidecar-launcher')
  rmSync(out)
  const defines = [`-DLAUNCHER="${real}"`, `-DRECORD="${record}"`]
  const source = join(fixtures, 'masked-launcher.c')
  execFileSync(compiler, ['-O1', '-static', '-Wall', '-Wextra', '-Werror', ...defines, '-o', out, source], {
    stdio: 'pipe',
  })
  return program
}
