/** Containers as the test runs them: confined, without a network, and gone at the end. */
import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { mustPodman, podman, work } from './podman.mjs'
import { writeStrictProfile } from './seccomp.mjs'

const started = new Set()

/** What an operator can ask for in addition; the compose file asks for it itself. */
const hardening = [
  '--read-only',
  '--read-only-tmpfs=false',
  '--cap-drop',
  'ALL',
  '--security-opt',
  'no-new-privileges',
]

/** What every container here gets, as most platforms give it to every container; and no network. */
function run(flags) {
  const name = `mcp-sidecar-test-${process.pid}-${started.size}`
  started.add(name)
  const seccomp = join(work, 'seccomp.json')
  writeStrictProfile(seccomp)
  return [
    name,
    ['run', '--name', name, '--network', 'none', '--security-opt', `seccomp=${seccomp}`, ...flags],
  ]
}

/** Starts a container in the background; returns its name. */
export async function start(image, flags, args, confinement = hardening) {
  const [name, command] = run(['--detach', ...confinement, ...flags])
  await mustPodman([...command, image, ...args])
  return name
}

/** Runs a container to its end; returns its exit code and what it printed. */
export function runToEnd(image, flags, args, timeoutMs = 60_000) {
  const [, command] = run(['--rm', ...hardening, ...flags])
  return podman([...command, image, ...args], { timeoutMs })
}

/** Runs a module's text with node inside a container; returns what it printed. */
export const inside = (name, script, ...args) =>
  mustPodman(['exec', '-i', name, 'node', '--input-type=module', '-', ...args], { input: script })

/** Waits until the sidecar in a container, and the server behind it, answer. */
export async function ready(name) {
  const script = `
    for (let last = Date.now() + 50_000; Date.now() < last; await new Promise((resolve) => setTimeout(resolve, 100))) {
      const response = await fetch('http://127.0.0.1:9090/readyz').catch(() => undefined)
      if (response?.ok) process.exit(0)
    }
    throw new Error('not ready after 50 s')`
  try {
    await inside(name, script)
  } catch (error) {
    const { stdout, stderr } = await podman(['logs', name])
    throw new Error(`${error.message}\nlog:\n${stdout}${stderr}`)
  }
}

/** The processes of a container as they see themselves, without the one that asks. */
export async function processes(name) {
  const script = `
    import { readFileSync, readdirSync } from 'node:fs'
    const others = readdirSync('/proc').filter((entry) => /^[0-9]+$/.test(entry) && entry !== String(process.pid))
    const look = (pid) => ({
      ...Object.fromEntries(readFileSync('/proc/' + pid + '/status', 'utf8').trim().split('\\n').map((line) => line.split(/:\\s*/))),
      command: readFileSync('/proc/' + pid + '/cmdline', 'utf8').split('\\0').slice(0, -1).join(' '),
    })
    console.log(JSON.stringify(others.flatMap((pid) => {
      try {
        return [look(pid)]
      } catch {
        return [] // It has just ended.
      }
    })))`
  return JSON.parse(await inside(name, script))
}

/** @returns {Promise<() => string[]>} lists the processes of this machine that live in the container's pid namespace */
export async function processesOnHost(name) {
  const pid = await mustPodman(['inspect', '--format', '{{.State.Pid}}', name])
  const namespace = readlinkSync(`/proc/${pid}/ns/pid`)
  const isInside = (entry) => {
    try {
      return readlinkSync(`/proc/${entry}/ns/pid`) === namespace
    } catch {
      return false // not a process, or one that has just ended
    }
  }
  return () => readdirSync('/proc').filter(isInside)
}

export async function removeContainers() {
  for (const name of started) await podman(['rm', '--force', '--time', '0', '--ignore', name])
}
