/** A configuration file for the sidecar of a test. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { folder } from './processes.ts'

/**
 * Written into a folder of its own that goes when the test ends; for the option `flags` of startTestSidecar.
 *
 * @param document its keys and values: JSON is YAML, too
 * @param others further files of the folder, by name; paths in the document are relative to it
 */
export function configFile(
  t: Test,
  document: object,
  others: Readonly<Record<string, string>> = {},
): { readonly config: string } {
  const path = folder(t)
  for (const [name, text] of Object.entries(others)) writeFileSync(join(path, name), text, { mode: 0o600 })
  const config = join(path, 'config.yaml')
  writeFileSync(config, JSON.stringify(document, undefined, 2))
  return { config }
}
