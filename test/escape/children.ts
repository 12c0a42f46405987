/** Processes that the suite starts in groups of their own, so that they do not end with it by themselves. */
import type { ChildProcess } from 'node:child_process'

/** Starts a program without the hooks that a test runner puts into every Node process. */
export const plainly = ['/usr/bin/env', '-u', 'NODE_OPTIONS'] as const

const children = new Set<ChildProcess>()

const endAll = (): void => {
  for (const child of children) child.kill('SIGKILL')
}
process.once('exit', endAll)
// How a test runner ends a test that takes too long.
process.once('SIGTERM', () => {
  endAll()
  process.exit(143)
})

/** Kills it when this process ends first. */
export function endWithUs(child: ChildProcess): void {
  children.add(child)
  child.once('exit', () => children.delete(child))
}
