import { type ChildProcess, spawn } from 'node:child_process'
import type { Logger } from '../core/types.ts'

// Starts with the groups in its arguments and reads "+ GROUP" and "- GROUP" lines. Its standard input closes when the sidecar is gone, however it went;
// what is still listed then gets a second to follow the closed stdin of its own accord.
const script = `
trap '' HUP INT TERM
groups=" $* "
while read -r op id; do
  case $op in
    +) groups="$groups$id " ;;
    -) groups="\${groups%% $id *} \${groups#* $id }" ;;
  esac
done
[ -n "\${groups## }" ] || exit 0
for id in $groups; do kill -s TERM -- "-$id" 2>/dev/null; done
sleep 1
for id in $groups; do kill -s KILL -- "-$id" 2>/dev/null; done
`

/**
 * Ends the process groups of servers without a launcher when the sidecar itself is killed with SIGKILL and can do nothing any
 * more. A shell of about a megabyte in a session of its own, so that neither a terminal's Ctrl-C nor a kill of the
 * sidecar's group ends it first.
 */
export class Reaper {
  readonly #log: Logger
  readonly #groups = new Set<number>()
  #shell: ChildProcess | undefined
  #closed = false

  constructor(log: Logger) {
    this.#log = log
  }

  add(group: number): void {
    this.#groups.add(group)
    if (this.#shell === undefined) this.#start()
    else this.#tell(`+ ${group}\n`)
  }

  remove(group: number): void {
    if (this.#groups.delete(group)) this.#tell(`- ${group}\n`)
  }

  /** Lets the shell end; it has nothing left to kill if every group was removed. */
  close(): void {
    this.#closed = true
    this.#shell?.stdin?.end()
  }

  #start(): void {
    // What there is already goes along: a sidecar killed in this moment could not tell it any more.
    const shell = spawn('/bin/sh', ['-c', script, 'reaper', ...[...this.#groups].map(String)], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
      env: { PATH: '/usr/bin:/bin' },
      cwd: '/',
    })
    this.#shell = shell
    shell.unref()
    const stdin = shell.stdin as typeof shell.stdin & { unref?: () => void }
    stdin?.unref?.()
    stdin?.on('error', () => {})
    shell.on('error', (cause) => {
      this.#log.warn({ err: cause.message }, 'without /bin/sh, servers may outlive a killed sidecar')
    })
    shell.on('exit', () => {
      this.#shell = undefined
      if (this.#closed) return
      this.#log.warn({}, 'the process that guards against orphaned servers was ended; starting it again')
      setTimeout(() => {
        if (!this.#closed && this.#shell === undefined && this.#groups.size > 0) this.#start()
      }, 1000).unref()
    })
  }

  #tell(line: string): void {
    this.#shell?.stdin?.write(line)
  }
}
