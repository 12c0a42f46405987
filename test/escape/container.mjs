/** The escape suite as `npm run test:container` runs it: compiled here, run there, where there is no compiler. */
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const project = fileURLToPath(new URL('../..', import.meta.url))
const fixtures = join(project, 'test/fixtures/escape')

/**
 * Makes a folder that holds all of it.
 *
 * @param {string} folder does not exist yet; readable to everybody afterwards
 * @param {string} [sidecar] where the container has the built sidecar
 * @returns {{ flags: string[], args: string[] }} for `podman run`: what stands before the image, and behind it
 */
export function escapeSuite(folder, sidecar = '/app/dist/bin/mcp-sidecar.js') {
  mkdirSync(folder, { mode: 0o755 })
  const tsc = [join(project, 'node_modules/typescript7/bin/tsc'), join(project, 'test/escape/main.ts')]
  const options = ['--target', 'es2023', '--module', 'nodenext', '--types', 'node', '--noCheck']
  const places = ['--outDir', join(folder, 'suite'), '--rootDir', project]
  execFileSync(
    process.execPath,
    [...tsc, '--ignoreConfig', '--rewriteRelativeImportExtensions', ...options, ...places],
    { cwd: project },
  )
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }\n')
  cpSync(fixtures, join(folder, 'fixtures'), { recursive: true })
  const programs = join(folder, 'programs')
  const environment = {
    ESCAPE_FIXTURES: '/escape/fixtures/',
    ESCAPE_PROGRAMS: '/escape/programs',
    ESCAPE_SIDECAR: sidecar,
  }
  const compile = `import { compileInto } from ${JSON.stringify(join(folder, 'suite/test/escape/build.js'))}
    compileInto(${JSON.stringify(programs)})`
  execFileSync(process.execPath, ['--input-type=module', '-e', compile], {
    env: { ...process.env, ESCAPE_FIXTURES: `${fixtures}/` },
  })
  for (const name of ['attempts', 'victim']) chmodSync(join(programs, name), 0o755)
  return {
    flags: [
      ...['--volume', `${folder}:/escape:ro`, '--entrypoint', 'node'],
      // The suite plays a server on port 443.
      ...['--sysctl', 'net.ipv4.ip_unprivileged_port_start=0'],
      // Programs of the attempts are run from there.
      ...['--tmpfs', '/tmp:rw,exec,mode=1777'],
      ...Object.entries(environment).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
    ],
    args: ['/escape/suite/test/escape/main.js'],
  }
}
