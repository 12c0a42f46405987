/** Every row of the list of escapes, tried inside the container. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { escapeSuite } from '../escape/container.mjs'
import { runToEnd } from './containers.mjs'
import { work } from './podman.mjs'

/** Generous: it takes about a minute where nothing else runs. Milliseconds. */
const timeoutMs = 300_000
let suite

/** @param {string} user `uid:gid` */
export async function noEscape(image, user) {
  suite ??= escapeSuite(join(work, 'escape'))
  const flags = [...suite.flags, '--user', user]
  const { code, stdout, stderr } = await runToEnd(image, flags, suite.args, timeoutMs)
  for (const [note] of stdout.matchAll(/^# .*/gm)) console.log(note)
  assert.equal(code, 0, stdout.slice(-4000) + stderr.slice(-2000))
  assert.match(stdout, /^# as uid \d+: 84 rows tried/m, 'the whole suite ran')
}
