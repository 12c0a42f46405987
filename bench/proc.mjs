import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))

// The command name, in parentheses, may itself contain spaces and parentheses.
function statFields(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

/** Processor time of this process alone, all its threads, in seconds (proc(5): utime and stime). */
export function cpuSeconds(pid) {
  const fields = statFields(pid)
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** Resident memory of this process alone, in bytes. */
export function residentBytes(pid) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)[1]) * 1024
}

/** Memory of a contestant started as collectable, after its garbage is collected: resident, and live in its heap and outside. */
export async function collectedMemory({ pid, memoryFile }) {
  for (let times = 0; times < 3; times++) {
    process.kill(pid, 'SIGUSR2')
    await sleep(250)
  }
  const { heapUsed, external } = JSON.parse(readFileSync(memoryFile, 'utf8'))
  return { resident: residentBytes(pid), live: heapUsed + external }
}

/** All processes started by `pid`, directly or not; those whose parent has ended are not found any more. */
export function descendants(pid) {
  const children = new Map()
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      const parent = Number(statFields(entry)[1])
      children.set(parent, [...(children.get(parent) ?? []), Number(entry)])
    } catch {
      // It ended between the listing and the reading.
    }
  }
  const found = []
  for (const next = [pid]; next.length; ) {
    const some = children.get(next.pop()) ?? []
    found.push(...some)
    next.push(...some)
  }
  return found
}
