/** `mcp-sidecar learn`: runs a server with everything allowed, and writes the profile that covers what it did. */
import { accessSync, constants, existsSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { Config } from './config/config.ts'
import { ConfigError, type Flags, type LoadedConfig, loadConfig } from './config/load.ts'
import { readProfile } from './config/permissions/read.ts'
import { DURATION, parseQuantity } from './config/units.ts'
import { checkFiles } from './confinement.ts'
import { interfaceAddresses } from './egress/own-addresses.ts'
import { StartError, startSidecar } from './main.ts'
import { createLogger, type LogOutput } from './observe/logger.ts'
import { fileFacts, homeFolders } from './sandbox/file-facts.ts'
import { type LearnedProfile, learnedProfile } from './sandbox/learned.ts'
import { learnedText } from './sandbox/learned-text.ts'
import { Observed } from './sandbox/observed.ts'
import { ProfileError } from './sandbox/profile.ts'
import { Unenforceable } from './sandbox/sandbox.ts'

export interface LearnOptions {
  /** Where the profile goes; undefined: standard output. */
  readonly output?: string
  /** A file that is there may be replaced. */
  readonly force?: boolean
  /** `60s`; undefined: until a signal. */
  readonly for?: string
}

export interface LearnContext {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly stdout: LogOutput
  readonly stderr: LogOutput
  readonly version: string
  /** Resolves with a signal that ends the session. */
  readonly stopped: () => Promise<unknown>
}

/** What a launcher wrote last may still be in its pipe when its process is gone. Milliseconds. */
const lastWordsMs = 200

/** A profile of a server that fails looks like one of a server that needs little. */
const unanswered =
  'the server did not answer when the session ended: what it does when it works is missing here'

/** @throws StartError, ConfigError */
export async function learn(
  { output, force = false, for: duration }: LearnOptions,
  flags: Flags,
  command: readonly string[],
  context: LearnContext,
): Promise<void> {
  const { env, cwd, stdout, stderr } = context
  const file = output === undefined ? undefined : resolve(cwd, output)
  const ms = duration === undefined ? undefined : milliseconds(duration)
  if (flags['permissions'] !== undefined)
    throw new StartError('learn makes a profile, and takes none: leave --permissions away')
  if (file !== undefined) checkOutput(file, force)
  const loaded = await loadConfig({ flags: { ...flags, permissions: 'full-access' }, env, cwd, command })
  const { config } = loaded
  if (config.server.socket !== undefined)
    throw new StartError('learn starts the server itself: it cannot watch one in another container')
  // Standard output is for the profile.
  const log = createLogger({ ...config.log, format: 'pretty' }, stderr)
  const observed = new Observed()
  const sidecar = await started(loaded, { ...context, log, observed })
  // Who reads that it listens may send a signal at once.
  const stopped = context.stopped()
  stderr.write(`${greeting(sidecar.url, ms).join('\n')}\n`)
  await stoppedOr(ms, stopped)
  const answered = sidecar.ready
  await sidecar.stop()
  await passed(lastWordsMs)
  // The profile itself will be the sidecar's, and no server may change it.
  const protectedPaths = [...config.protectedPaths, ...(file === undefined ? [] : [file])]
  const seen = learnedProfile(observed, {
    files: fileFacts(),
    protectedPaths,
    home: env['HOME'],
    homes: homeFolders(env['HOME']),
    ownAddresses: new Set(interfaceAddresses()),
  })
  const profile = answered ? seen : { ...seen, review: [unanswered, ...seen.review] }
  const text = learnedText(profile, about(config.server.command, sidecar.enforcement.kernel?.uid))
  const remarks = [...profile.review, ...problems(text, { ...config, protectedPaths }, env)]
  if (file === undefined) stdout.write(text)
  else await save(file, text, force)
  stderr.write(`${farewell(output, remarks, profile, config.server.command).join('\n')}\n`)
}

async function started(
  { config }: LoadedConfig,
  context: Parameters<typeof startSidecar>[1],
): ReturnType<typeof startSidecar> {
  try {
    return await startSidecar(config, context)
  } catch (thrown) {
    if (!(thrown instanceof StartError && thrown.cause instanceof Unenforceable)) throw thrown
    const { mechanism, reason } = thrown.cause.report.refusal ?? {
      mechanism: 'launcher',
      reason: thrown.message,
    }
    throw new StartError(
      `the files that a server uses cannot be watched here: ${mechanism}: ${reason}; learn on Linux 5.9 or later, where no other seccomp listener watches this process, and use the profile here`,
      { cause: thrown },
    )
  }
}

/** Whichever comes first; nothing is left to wait for then. */
async function stoppedOr(ms: number | undefined, stopped: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const over = new Promise<void>((done) => {
    if (ms !== undefined) timer = setTimeout(done, ms)
  })
  await Promise.race([stopped, over])
  clearTimeout(timer)
}

function passed(ms: number): Promise<void> {
  return new Promise((done) => {
    setTimeout(done, ms)
  })
}

function milliseconds(duration: string): number {
  const parsed = parseQuantity(DURATION, duration)
  if (!parsed.ok) throw new StartError(`--for: ${parsed.faults.map(({ message }) => message).join('; ')}`)
  return parsed.value
}

/** @throws StartError before a session that would be in vain */
function checkOutput(file: string, force: boolean): void {
  if (!existsSync(dirname(file))) throw new StartError(`--output: there is no folder ${dirname(file)}`)
  if (!force && existsSync(file))
    throw new StartError(`--output: ${file} exists; --force replaces it, another name keeps it`)
  try {
    accessSync(dirname(file), constants.W_OK)
  } catch {
    throw new StartError(`--output: this user may not write in the folder ${dirname(file)}`)
  }
}

/** The server may have put links where the profile is to go: nothing is written through one. */
async function save(file: string, text: string, force: boolean): Promise<void> {
  const fresh = force ? `${file}.${process.pid}` : file
  try {
    const handle = await open(fresh, 'wx')
    try {
      await handle.writeFile(text)
    } finally {
      await handle.close()
    }
    if (force) await rename(fresh, file)
  } catch (thrown) {
    if (force) await rm(fresh, { force: true })
    throw new StartError(
      `--output: ${file} cannot be written: ${(thrown as Error).message}; it was:\n${text}`,
    )
  }
}

/** The profile is read back and checked as a start would. */
function problems(
  text: string,
  config: Config,
  env: Readonly<Record<string, string | undefined>>,
): readonly string[] {
  try {
    const { profile } = readProfile(text, 'the profile', 'learned')
    checkFiles({ ...config, permissions: profile }, env)
    return []
  } catch (thrown) {
    if (thrown instanceof ProfileError) return thrown.faults.map(({ message }) => message)
    if (thrown instanceof ConfigError)
      return thrown.problems.map(({ where, message }) => `${where}: ${message}`)
    throw thrown
  }
}

function greeting(url: string, ms: number | undefined): readonly string[] {
  const end = ms === undefined ? 'end it with Ctrl-C' : `it ends by itself in ${ms / 1000} s, or with Ctrl-C`
  return [
    `Learning: connect a client to ${url} and use everything that the server is for; ${end}.`,
    'The server may read and write every file that this user can but what belongs to the sidecar, and reach every host over TCP.',
  ]
}

function about(command: readonly string[], uid: number | undefined): readonly string[] {
  return [
    `Learned by mcp-sidecar from one session with this server${uid === undefined ? '' : `, run by uid ${uid}`}:`,
    `  ${shown(command)}`,
    'It grants what was used, in places the whole folder around it: each line says what was seen. What was not tried in the',
    'session is not in it. Seen were files and TCP connections. UDP, unix sockets and listening were refused, as under every',
    'profile, so that what the server would have gone on to do with them is not known.',
  ]
}

function farewell(
  output: string | undefined,
  remarks: readonly string[],
  { filesystem: { read, write }, hosts, cidrs }: LearnedProfile,
  command: readonly string[],
): readonly string[] {
  const counts = `${counted(read, 'path')} to read, ${write.length} to write, ${counted(hosts, 'host')}, ${counted(cidrs, 'network')}`
  return [
    '',
    `Learned: ${counts}.`,
    ...(remarks.length === 0 ? [] : ['To look at:', ...remarks.map((each) => `  - ${printable(each)}`)]),
    `Try it: mcp-sidecar --permissions ${output === undefined ? 'FILE' : shown([output])} -- ${shown(command)}`,
  ]
}

function counted(all: readonly unknown[], what: string): string {
  return `${all.length} ${what}${all.length === 1 ? '' : 's'}`
}

function shown(words: readonly string[]): string {
  return words
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${printable(word).replaceAll("'", `'\\''`)}'`))
    .join(' ')
}

/** File names of the server's making go to a terminal here. */
function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not get through
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?')
}
