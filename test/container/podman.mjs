/** podman with all of its state in one scratch directory, apart from any other podman of the machine. */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/**
 * Keeps the base image and the build's layers between runs; may be deleted at any time.
 * The path has to be short: podman refuses a run root of more than 50 characters.
 */
export const scratch =
  process.env.CONTAINER_TEST_SCRATCH ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'mcp-sidecar-container')

const temporary = join(scratch, 'tmp')
const configuration = join(scratch, 'containers.conf')

mkdirSync(temporary, { recursive: true })

/** What belongs to this run alone. */
export const work = mkdtempSync(join(scratch, 'test-'))

writeFileSync(
  configuration,
  [
    '[containers]',
    // Podman's own defaults lie above what a machine without CAP_SYS_RESOURCE may set.
    'default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]',
    'log_driver = "k8s-file"',
    '[engine]',
    'cgroup_manager = "cgroupfs"',
    'events_logger = "file"',
    // The default keeps the locks of every podman of the machine in one piece of shared memory.
    'lock_type = "file"',
    // crun 1.8 refuses a machine that has both versions of cgroups mounted.
    'runtime = "runc"',
    `tmp_dir = "${join(scratch, 'libpod')}"`,
    '',
  ].join('\n'),
)

const storage = [
  '--root',
  join(scratch, 'store'),
  '--runroot',
  join(scratch, 'run'),
  '--storage-driver',
  'overlay',
]

const environment = { ...process.env, CONTAINERS_CONF: configuration, TMPDIR: temporary }

/**
 * Runs a program to its end; never throws for a failing one.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {{ input?: string | import('node:stream').Readable, timeoutMs?: number, cwd?: string }} [options]
 * @returns {Promise<{ code: number, stdout: string, stderr: string }>} code is 128 + n for signal n's default, -1 if
 *   the program could not be started
 */
export function execute(command, args, { input = '', timeoutMs = 60_000, cwd } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env: environment, timeout: timeoutMs, killSignal: 'SIGKILL' })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (data) => {
      stdout += data
    })
    child.stderr.on('data', (data) => {
      stderr += data
    })
    child.on('error', (error) => resolve({ code: -1, stdout, stderr: String(error) }))
    child.on('close', (code, signal) => {
      if (signal) stderr += `\n${command} ended by ${signal} (limit ${timeoutMs} ms)`
      resolve({ code: code ?? -1, stdout, stderr })
    })
    // A program that ends without reading its input is no failure of ours.
    child.stdin.on('error', () => {})
    if (typeof input === 'string') child.stdin.end(input)
    else input.pipe(child.stdin)
  })
}

/** Like `execute`, but a failure is an error that says what the program printed. */
export async function must(command, args, options) {
  const result = await execute(command, args, options)
  if (result.code !== 0) {
    throw new Error(`${command} ${args.join(' ')}\nexit ${result.code}\n${result.stdout}${result.stderr}`)
  }
  return result.stdout.trim()
}

export const podman = (args, options) => execute('podman', [...storage, ...args], options)
export const mustPodman = (args, options) => must('podman', [...storage, ...args], options)

/** Builds an image; `--isolation chroot` because a build needs no container of its own, and none may be available. */
export function build(tag, context, buildArgs) {
  return mustPodman(
    [
      ...['build', '--isolation', 'chroot', '--network', 'host', '--pull-never', '--layers'],
      // The OCI format has no HEALTHCHECK.
      ...['--format', 'docker', '--tag', tag],
      ...Object.entries(buildArgs).flatMap(([name, value]) => ['--build-arg', `${name}=${value}`]),
      context,
    ],
    { timeoutMs: 600_000 },
  )
}

/**
 * Takes the names of images away. Their layers stay for some days and make the next build quick; removing an image
 * would remove them with it.
 */
export async function forget(tags) {
  for (const tag of tags) await podman(['untag', tag])
  await podman(['image', 'prune', '--force', '--filter', 'until=72h'])
}

/** Installs the Debian packages of the programs that are missing. */
export async function installPrograms(packages) {
  const missing = []
  for (const [program, name] of Object.entries(packages)) {
    if ((await execute('sh', ['-c', `command -v ${program}`])).code !== 0) missing.push(name)
  }
  if (missing.length === 0) return
  console.log(`# installing ${missing.join(' ')}`)
  const quiet = ['-qq', '-o', 'Dpkg::Use-Pty=0', '-o', 'DPkg::Lock::Timeout=120']
  process.env.DEBIAN_FRONTEND = 'noninteractive'
  await must('apt-get', ['update', ...quiet], { timeoutMs: 300_000 })
  await must('apt-get', ['install', '--yes', '--no-install-recommends', ...quiet, ...missing], {
    timeoutMs: 600_000,
  })
}
