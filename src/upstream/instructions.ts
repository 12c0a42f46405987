import type { Launch } from '../core/sandbox.ts'
import { frame, maxPayloadBytes } from './frames.ts'
import type { ServerCommand, ServerSocket } from './process.ts'

/**
 * The first frame to a launcher in another container: the policy, and what a process that is started here would have by
 * itself. Variables that are passed on are looked up there, where they belong to the server and its image.
 *
 * @param trial everything is set up and tested, and the server's program looked for, but not run
 * @throws Error for the log
 */
export function instructions(
  launch: Pick<Launch, 'policy' | 'env'> | undefined,
  { command, cwd }: Pick<ServerCommand, 'command' | 'cwd'>,
  { pass }: Pick<ServerSocket, 'pass'>,
  trial = false,
): Buffer {
  // Nobody else would tell the launcher what to enforce.
  if (launch?.policy === undefined) throw new Error('a server in another container needs a policy')
  const records: string[] = []
  const add = (key: string, value: string): void => {
    // It would end this record and begin another.
    if (value.includes('\0')) throw new Error(`a value of ${key} has a NUL in it`)
    records.push(`${key} ${value}\0`)
  }
  if (trial) add('check', '1')
  for (const name of pass) add('env.pass', name)
  for (const [name, value] of Object.entries(launch.env)) add('env', `${name}=${value}`)
  if (cwd !== undefined) add('cwd', cwd)
  for (const word of command) add('arg', word)
  const payload = Buffer.concat([launch.policy, Buffer.from(records.join(''))])
  if (payload.length > maxPayloadBytes)
    throw new Error(
      `its policy, variables and arguments have ${payload.length} bytes together; the most is ${maxPayloadBytes}`,
    )
  return frame('P', payload)
}
