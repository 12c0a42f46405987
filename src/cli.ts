import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { Command, CommanderError } from 'commander'
import type { PasswordInput } from './authn/password-prompt.ts'
import { explainReadError } from './config/disk.ts'
import { ConfigError, FLAGS, type Flags, type LoadedConfig, loadConfig } from './config/load.ts'
import { placing } from './config/placing.ts'
import { watchFiles } from './config/watch.ts'
import type { LearnOptions } from './learn.ts'
import { type Sidecar, StartError, startSidecar } from './main.ts'
import type { VerifyOptions } from './observe/audit-verify.ts'
import { systemClock } from './observe/clock.ts'
import { createLogger, type LogOutput, type SidecarLogger } from './observe/logger.ts'
import { enforcement, startReport } from './report.ts'

/** What the command line reads and writes; a test passes its own. */
export interface Terminal {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly stdout: LogOutput
  readonly stderr: { write(text: string): unknown }
  /** Read by commands that take a secret or a file from it. */
  readonly stdin: PasswordInput
}

/** Usage and configuration errors, and everything else that went wrong. */
const exitCodes = { ok: 0, failed: 1, usage: 2 } as const

/**
 * Runs one command. Resolves with the exit code: 0, 1 when something failed at run time, 2 when the command line or
 * the configuration is wrong.
 */
export async function runCli(terminal: Terminal): Promise<number> {
  const { argv, stdout, stderr } = terminal
  // Everything after the first -- belongs to the server, however much it looks like our own options.
  const separator = argv.indexOf('--')
  const own = separator < 0 ? argv : argv.slice(0, separator)
  const command = separator < 0 ? [] : argv.slice(separator + 1)
  let exitCode: number = exitCodes.ok
  const program = new Command('mcp-sidecar')
    .description('Serves a stdio MCP server over Streamable HTTP, HTTP+SSE and WebSocket.')
    .version(packageVersion(), '--version')
    .configureOutput({ writeOut: (text) => stdout.write(text), writeErr: (text) => stderr.write(text) })
    .exitOverride()
    .addHelpText(
      'after',
      '\nThe server is given after --, as in: mcp-sidecar --port 8080 -- npx -y some-mcp-server',
    )

  withFlags(program.command('run', { isDefault: true }).description('Run the sidecar (the default)'))
    .usage('[options] -- COMMAND [ARG...]')
    .allowExcessArguments()
    .action(async (flags: Flags, { args }: Command) => {
      if (args.length > 0) {
        const words = args.join(' ')
        const { nearest } = await import('./config/nearest.ts')
        const meant = nearest(
          args[0] as string,
          program.commands.map((each) => each.name()),
        )
        const separate = `the server goes after --, as in: mcp-sidecar -- ${words}`
        stderr.write(
          `mcp-sidecar: unexpected ${words}; ${meant === undefined ? separate : `did you mean ${meant}?`}\n`,
        )
        exitCode = exitCodes.usage
        return
      }
      exitCode = await run(terminal, flags, command)
    })
  withFlags(
    program
      .command('validate')
      .description('Check a configuration and show it, with where each value comes from'),
  )
    .usage('--config FILE [options] [-- COMMAND [ARG...]]')
    .option('--explain', 'show the policy that results, and where each part of it comes from')
    .action(async ({ explain, ...flags }: Flags & { explain?: boolean }) => {
      const loaded = await loadConfig({ flags, env: terminal.env, cwd: terminal.cwd, command })
      const { checkWorld } = await import('./world.ts')
      await placing(loaded, checkWorld(loaded.config, terminal.env))
      const { explainConfig, explainPolicy } = await import('./config/explain.ts')
      const { notEnforced } = enforcement(loaded.config)
      const { checkFiles } = await import('./confinement.ts')
      const lines =
        explain === true
          ? explainPolicy(loaded, notEnforced, checkFiles(loaded.config, terminal.env))
          : explainConfig(loaded)
      stdout.write(`${lines.join('\n')}\n`)
    })
  withFlags(
    program
      .command('doctor')
      .description('Try out what this host can enforce of a permission profile, mechanism by mechanism'),
  )
    .usage('[options] [-- COMMAND [ARG...]]')
    .action(async (flags: Flags) => {
      exitCode = await doctor(terminal, flags, command)
    })
  withFlags(
    program
      .command('learn')
      .description('Run a server with everything allowed, and write the permission profile of what it did'),
  )
    .usage('[--output FILE] [--force] [--for DURATION] [options] -- COMMAND [ARG...]')
    .option('--output <FILE>', 'where the profile goes; default: standard output')
    .option('--force', 'replace the file if there is one')
    .option('--for <DURATION>', 'how long, as in 60s; default: until Ctrl-C')
    .action(async ({ output, force, for: duration, ...flags }: Flags & LearnOptions) => {
      const { learn } = await import('./learn.ts')
      const context = { ...terminal, version: packageVersion(), stopped: () => stopSignal(true) }
      await learn({ output, force, for: duration } as LearnOptions, flags as Flags, command, context)
    })
  program
    .command('schema')
    .description('Print the JSON Schema of the configuration file')
    .option('--format <FORMAT>', 'json, or markdown for the reference', 'json')
    .action(async ({ format }: { format: string }) => {
      if (format === 'markdown') {
        const { configurationReference } = await import('./config/reference.ts')
        stdout.write(configurationReference())
      } else if (format === 'json') {
        const { jsonSchema } = await import('./config/json-schema.ts')
        stdout.write(`${JSON.stringify(jsonSchema(), undefined, 2)}\n`)
      } else throw new StartError(`--format must be json or markdown, not ${format}`)
    })
  program
    .command('errors')
    .description('Print the table of errors that the sidecar itself answers with')
    .action(async () => {
      const { errorLines } = await import('./core/errors.ts')
      stdout.write(`${errorLines().join('\n')}\n`)
    })
  program
    .command('hash')
    .description('Read a password from standard input and print its hash for auth.basic.passwordFile')
    .argument('<NAME>', 'who it belongs to')
    .action(async (name: string) => {
      const { passwordLine } = await import('./authn/password-line.ts')
      try {
        stdout.write(await passwordLine(name, terminal.stdin, (text) => stderr.write(text)))
      } catch (cause) {
        throw new StartError(cause instanceof Error ? cause.message : String(cause), { cause })
      }
    })
  program
    .command('audit')
    .description('What can be done with an audit log')
    .command('verify')
    .description('Check that no line of an audit log was changed, removed, moved or inserted')
    .argument('<FILE...>', 'files of one log, the oldest first; - is standard input')
    .option('--expect-seq <N>', 'a line with this number has to be there', wholeNumber)
    .option('--expect-hash <HASH>', 'a line with this hash has to be there')
    .option('--restarts', 'the chain may begin anew, as on standard output at each start')
    .action(async (files: string[], expected: VerifyOptions) => {
      const { auditVerifyReport, verifyAudit } = await import('./observe/audit-verify.ts')
      const sources = files.map((file) =>
        file === '-'
          ? { name: '-', bytes: terminal.stdin as AsyncIterable<Buffer> }
          : resolve(terminal.cwd, file),
      )
      const verified = await verifyAudit(sources, expected).catch((cause: NodeJS.ErrnoException) => {
        throw new StartError(`${cause.path ?? '-'} ${explainReadError(cause)}`, { cause })
      })
      stdout.write(`${auditVerifyReport(verified).join('\n')}\n`)
      if (!verified.ok) exitCode = exitCodes.failed
    })
  try {
    await program.parseAsync([...own], { from: 'user' })
    return exitCode
  } catch (thrown) {
    return report(thrown, stderr)
  }
}

function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new StartError(`--expect-seq must be a whole number, not ${text}`)
  return Number(text)
}

function withFlags(command: Command): Command {
  for (const { flag, placeholder, description, repeatable } of FLAGS) {
    const syntax = placeholder === undefined ? flag : `${flag} <${placeholder}>`
    if (repeatable)
      command.option(syntax, description, (value: string, all: string[] = []) => [...all, value])
    else if (placeholder === undefined) command.option(syntax, description)
    // The last would win in silence, and the one before may be what protects the server.
    else
      command.option(syntax, description, (value: string, before = value) => {
        if (before === value) return value
        throw new ConfigError([{ where: flag, message: 'is given twice, and one of them would not count' }])
      })
  }
  return command
}

function report(thrown: unknown, stderr: Terminal['stderr']): number {
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  if (thrown instanceof ConfigError) {
    for (const { where, message } of thrown.problems) stderr.write(`mcp-sidecar: ${where}: ${message}\n`)
    return exitCodes.usage
  }
  if (thrown instanceof StartError) {
    stderr.write(`mcp-sidecar: ${thrown.message}\n`)
    return exitCodes.failed
  }
  stderr.write(
    `mcp-sidecar: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}\n`,
  )
  return exitCodes.failed
}

/** Tells what holds here of the profile that is configured; exit code 1 when the server would not be started. */
async function doctor(terminal: Terminal, flags: Flags, command: readonly string[]): Promise<number> {
  const { env, cwd, stdout } = terminal
  // Without a configuration there is no server, and none is needed.
  const some = command.length === 0 && flags['config'] === undefined ? ['true'] : command
  const loaded = await loadConfig({ flags, env, cwd, command: some })
  const { config } = loaded
  const { examine } = await import('./confinement.ts')
  const { reportLines } = await import('./sandbox/report.ts')
  const log = createLogger({ ...config.log, level: 'error' }, terminal.stderr)
  const nothing = (): void => {}
  const examined = examine(config, {
    ...{
      clock: systemClock,
      log,
      env,
      records: { event: nothing },
      metrics: { egress: nothing, egressBytes: nothing },
    },
    ownPorts: () => [],
  })
  const report = await placing(loaded, examined)
  if (config.permissions === undefined)
    stdout.write('No profile is configured; this is what would hold under the profile network.\n\n')
  stdout.write(`${reportLines(report).join('\n')}\n`)
  return report.verdict === 'refused' ? exitCodes.failed : exitCodes.ok
}

/** What is allowed and yet not wise: a secret in clear in a document. */
function warn({ warnings }: LoadedConfig, log: SidecarLogger): void {
  for (const { where, message } of warnings) log.warn({ where }, message)
}

async function run(terminal: Terminal, flags: Flags, command: readonly string[]): Promise<number> {
  const input = { flags, env: terminal.env, cwd: terminal.cwd, command }
  const loaded = await loadConfig(input)
  const { config } = loaded
  const log = createLogger(config.log, terminal.stdout)
  const context = { env: terminal.env, cwd: terminal.cwd, log, version: packageVersion() }
  warn(loaded, log)
  const sidecar = await placing(loaded, startSidecar(config, context))
  // A terminal that closes sends SIGHUP: it then ends what it started, as it does with other programs.
  const attended = terminal.stdout.isTTY === true
  // Who reads that it listens may send a signal at once.
  const stopped = stopSignal(attended)
  const watching = watchForReload(sidecar, loaded, () => loadConfig(input), log, !attended)
  const report = startReport(sidecar)
  // Text for a person, a log line for a program.
  if (config.log.format === 'json' || (config.log.format === 'auto' && !attended)) {
    log.info(report.fields, 'listening')
  } else terminal.stdout.write(`${report.lines.join('\n')}\n`)
  const signal = await stopped
  for (const second of ['SIGTERM', 'SIGINT'] as const)
    process.once(second, () => process.exit(exitCodes.failed))
  log.info({ signal, graceMs: config.shutdownGraceMs }, 'shutting down: answering what is in flight')
  watching.close()
  await sidecar.stop()
  log.info({}, 'stopped')
  await log.flush()
  return exitCodes.ok
}

/** On SIGHUP (unless a terminal sends it), and when a file of the configuration changes, the configuration is loaded anew and swapped in. */
function watchForReload(
  sidecar: Sidecar,
  { files }: LoadedConfig,
  load: () => Promise<LoadedConfig>,
  log: SidecarLogger,
  onSighup: boolean,
): { close(): void } {
  const reloadNow = async (why: string): Promise<void> => {
    try {
      const next = await load()
      // It may name other files now. Before they are read, so that no change of theirs is lost.
      watcher.update([...inForce, ...next.files])
      await placing(next, sidecar.reload(next.config))
      inForce = next.files
      watcher.update(inForce)
      log.info({ why }, 'configuration reloaded')
      warn(next, log)
    } catch (thrown) {
      const reason = thrown instanceof Error ? thrown.message : String(thrown)
      log.error({ why, reason }, 'the new configuration was not taken; the old one stays in force')
    }
  }
  // One after the other, so that what was read last is in force last.
  let last = Promise.resolve()
  const reload = (why: string): void => {
    last = last.then(() => reloadNow(why))
  }
  let inForce = files
  const watcher = watchFiles(files, (changed) => reload(changed.join(', ')))
  const onHangup = (): void => {
    sidecar.reopenAudit()
    reload('SIGHUP')
  }
  if (onSighup) process.on('SIGHUP', onHangup)
  return {
    close: () => {
      process.off('SIGHUP', onHangup)
      watcher.close()
    },
  }
}

function stopSignal(attended: boolean): Promise<NodeJS.Signals> {
  const signals: NodeJS.Signals[] = attended ? ['SIGTERM', 'SIGINT', 'SIGHUP'] : ['SIGTERM', 'SIGINT']
  return new Promise((resolve) => {
    for (const signal of signals) process.once(signal, () => resolve(signal))
  })
}

export function packageVersion(): string {
  // From the sources and from dist/ the package file is a different number of folders up.
  for (const path of ['../package.json', '../../package.json']) {
    try {
      return (JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as { version: string }).version
    } catch {
      // The other one.
    }
  }
  return 'unknown'
}
