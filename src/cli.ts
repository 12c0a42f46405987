import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import type { Config } from './config/config.ts'
import { ConfigError, FLAGS, type Flags, type LoadedConfig, loadConfig } from './config/load.ts'
import { watchFiles } from './config/watch.ts'
import { isLoopback } from './core/net.ts'
import { type Sidecar, StartError, startSidecar } from './main.ts'
import { createLogger, type LogOutput, type SidecarLogger } from './observe/logger.ts'

/** What the command line reads and writes; a test passes its own. */
export interface Terminal {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly stdout: LogOutput
  readonly stderr: { write(text: string): unknown }
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
        stderr.write(
          `mcp-sidecar: unexpected ${words}; the server goes after --, as in: mcp-sidecar -- ${words}\n`,
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
    .action(async (flags: Flags) => {
      const loaded = await loadConfig({ flags, env: terminal.env, cwd: terminal.cwd, command })
      const { explainConfig } = await import('./config/explain.ts')
      stdout.write(`${explainConfig(loaded).join('\n')}\n`)
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
      const { errorTable } = await import('./core/errors.ts')
      stdout.write('code                   HTTP  JSON-RPC  WebSocket  what the client reads\n')
      for (const [code, { status, rpc, close, sentence }] of Object.entries(errorTable)) {
        const row = `${code.padEnd(22)} ${status}   ${String(rpc).padEnd(8)}  ${String(close).padEnd(9)}  ${sentence}\n`
        stdout.write(row)
      }
    })
  try {
    await program.parseAsync([...own], { from: 'user' })
    return exitCode
  } catch (thrown) {
    return report(thrown, stderr)
  }
}

function withFlags(command: Command): Command {
  for (const { flag, placeholder, description, repeatable } of FLAGS) {
    const syntax = placeholder === undefined ? flag : `${flag} <${placeholder}>`
    if (repeatable)
      command.option(syntax, description, (value: string, all: string[] = []) => [...all, value])
    else command.option(syntax, description)
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

async function run(terminal: Terminal, flags: Flags, command: readonly string[]): Promise<number> {
  const input = { flags, env: terminal.env, cwd: terminal.cwd, command }
  const loaded = await loadConfig(input)
  const { config } = loaded
  const log = createLogger(config.log, terminal.stdout)
  const sidecar = await startSidecar(config, {
    env: terminal.env,
    cwd: terminal.cwd,
    log,
    version: packageVersion(),
  })
  announce(sidecar, log, terminal)
  // A terminal that closes sends SIGHUP: it then ends what it started, as it does with other programs.
  const attended = terminal.stdout.isTTY === true
  const watching = watchForReload(sidecar, loaded, () => loadConfig(input), log, !attended)
  const signal = await stopSignal(attended)
  log.info({ signal, graceMs: config.shutdownGraceMs }, 'shutting down: answering what is in flight')
  for (const second of ['SIGTERM', 'SIGINT'] as const)
    process.once(second, () => process.exit(exitCodes.failed))
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
      sidecar.reload(next.config)
      log.info({ why }, 'configuration reloaded')
      // It may name other files now.
      watcher.close()
      watcher = watchFiles(next.files, (changed) => reload(changed.join(', ')))
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
  let watcher = watchFiles(files, (changed) => reload(changed.join(', ')))
  const onHangup = (): void => reload('SIGHUP')
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

/** Where to connect, what is enforced, and a client configuration to paste: as text for a person, as a log line else. */
function announce(sidecar: Sidecar, log: SidecarLogger, { stdout }: Terminal): void {
  const { config, url, adminUrl } = sidecar
  const base = url.slice(0, url.lastIndexOf('/'))
  const urls = {
    ...(config.listen.streamableHttp ? { url } : {}),
    ...(config.listen.httpSse ? { sseUrl: `${base}/sse` } : {}),
    ...(config.listen.webSocket ? { webSocketUrl: `${base.replace(/^http/, 'ws')}/ws` } : {}),
  }
  const { enforced, notEnforced } = enforcement(config)
  const clientConfig = {
    mcpServers: {
      sidecar: {
        type: 'http',
        url,
        ...(config.auth.bearerTokenFile === undefined
          ? {}
          : { headers: { Authorization: 'Bearer YOUR-TOKEN' } }),
      },
    },
  }
  if (config.log.format === 'json' || (config.log.format === 'auto' && stdout.isTTY !== true)) {
    log.info({ ...urls, adminUrl, enforced, notEnforced, clientConfig }, 'listening')
    return
  }
  const lines = [
    '',
    `  MCP server: ${config.server.command.join(' ')}`,
    '',
    ...(config.listen.streamableHttp ? [`  Streamable HTTP   ${url}`] : []),
    ...(config.listen.httpSse ? [`  HTTP+SSE          ${base}/sse`] : []),
    ...(config.listen.webSocket ? [`  WebSocket         ${base.replace(/^http/, 'ws')}/ws`] : []),
    `  Admin             ${adminUrl}/healthz  /readyz  /metrics`,
    '',
    ...enforced.map((line) => `  enforced      ${line}`),
    ...notEnforced.map((line) => `  NOT enforced  ${line}`),
    '',
    '  Client configuration:',
    ...JSON.stringify(clientConfig, undefined, 2)
      .split('\n')
      .map((line) => `    ${line}`),
    '',
  ]
  stdout.write(`${lines.join('\n')}\n`)
}

/** What holds and what does not, in words for whoever signs it off. */
function enforcement(config: Config): { readonly enforced: string[]; readonly notEnforced: string[] } {
  const enforced = [
    'Host and Origin checks',
    'limits on sessions, processes, sizes and times',
    "the server's environment",
  ]
  const notEnforced = [
    'file system and network access of the server process: it runs with the rights of this user',
  ]
  if (config.auth.bearerTokenFile !== undefined) enforced.unshift('authentication: static bearer tokens')
  else if (config.auth.none) notEnforced.unshift('authentication: off, as configured')
  else if (isLoopback(config.listen.host))
    notEnforced.unshift('authentication: off; only this machine can connect')
  if (config.server.topology === 'shared')
    notEnforced.push('separation of callers inside the server: one process serves all')
  else if (config.server.topology === 'auto' && config.server.era !== 'legacy')
    notEnforced.push('separation of callers inside the server, if it is a modern one: one process serves all')
  return { enforced, notEnforced }
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
