/** Loads a configuration from files in a folder of the test. */
import type { Test } from 'tap'
import { ConfigError, type Flags, type LoadedConfig, loadConfig } from '../../src/config/load.ts'

export interface Loading {
  readonly flags?: Flags
  readonly env?: Readonly<Record<string, string>>
  /** Default: `node`. */
  readonly command?: readonly string[]
}

type Tree = Parameters<Test['testdir']>[0]

/** @param files relative to the working directory; `c.yaml`, if it is there, is the configuration file */
export async function load(t: Test, files: Tree & object, options: Loading = {}): Promise<LoadedConfig> {
  const cwd = t.testdir(files)
  const config = 'c.yaml' in files ? { config: 'c.yaml' } : {}
  const { flags, env = {}, command = ['node'] } = options
  return await loadConfig({ flags: { ...config, ...flags }, env, cwd, command })
}

/** What is wrong, one text each; none when it loads. The folder of the test is written as DIR. */
export async function problems(t: Test, files: Tree & object, options: Loading = {}): Promise<string[]> {
  try {
    await load(t, files, options)
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map(({ where, message }) => `${where}: ${message}`.replaceAll(t.testdirName, 'DIR'))
  }
}
