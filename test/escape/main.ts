/**
 * The escape suite without a test runner, for containers and for looking at single rows. Compiled to JavaScript:
 * `node main.js [--uid N] [--rows 1,2] [--profiles main,none] [--unconfined] [--abi N] [--slow MS]`. Prints what is not as it
 * should be, then the summary; exits with 1 if there is any.
 */
import { parseArgs } from 'node:util'
import { attemptAll, type Only, withoutSandbox } from './run.ts'

const { values } = parseArgs({
  options: {
    uid: { type: 'string' },
    rows: { type: 'string' },
    profiles: { type: 'string' },
    unconfined: { type: 'boolean' },
    all: { type: 'boolean' },
    slow: { type: 'string' },
    abi: { type: 'string' },
  },
})
const uid = Number(values.uid ?? process.getuid?.() ?? 0)
const only: Only = {
  ...(values.rows === undefined ? {} : { rows: values.rows.split(',').map(Number) }),
  ...(values.profiles === undefined ? {} : { profiles: values.profiles.split(',') }),
  ...(values.abi === undefined ? {} : { abi: Number(values.abi) }),
}
let passed = 0
let failed = 0
const say = (ok: boolean, text: string): void => {
  if (ok) passed += 1
  else failed += 1
  if (!ok || values.all === true) console.log(`${ok ? 'ok' : 'not ok'} - ${text}`)
}
const slow = Number(values.slow ?? Number.POSITIVE_INFINITY)

await (values.unconfined === true ? withoutSandbox : attemptAll)(
  uid,
  {
    found: ({ row, title, verdict, outcome, ms }) => {
      say(verdict !== 'escaped', `${row} ${title}: ${verdict === 'reported' ? 'reported as ' : ''}${outcome}`)
      if (ms > slow) console.log(`# ${Math.round(ms)} ms: ${row} ${title}`)
    },
    check: (ok, title, details) => say(ok, ok ? title : `${title}: ${details}`),
    note: (text) => console.log(`# ${text}`),
  },
  only,
)
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
