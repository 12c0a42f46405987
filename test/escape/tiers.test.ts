/** The same on older kernels, as a launcher sees them whose view of Landlock is capped. */
import t from 'tap'
import { attemptAll } from './run.ts'
import { missing } from './sidecar.ts'

// Minutes where nobody else wants the processors, several times as long elsewhere.
t.setTimeout(900_000)
const nobody = 65534
const uid = process.getuid?.() === 0 ? nobody : (process.getuid?.() ?? nobody)
const reason = missing('mcp-sidecar-launcher-test')
/** How much the proxy can take has nothing to do with Landlock. */
const without = [51]

// Linux 5.15, 6.2 and 6.10: without rename and truncate rules, without TCP rules, without scopes.
for (const abi of [1, 3, 5]) {
  t.test(
    `a server cannot leave its sandbox with Landlock ABI ${abi}`,
    { skip: reason ?? false },
    async (t) => {
      await attemptAll(
        uid,
        {
          found: ({ row, title, verdict, outcome }) => {
            if (verdict === 'reported') t.pass(`${row} ${title}: not enforceable, and reported as ${outcome}`)
            else t.ok(verdict === 'held', `${row} ${title}: ${outcome}`)
          },
          check: (ok, title, details) => t.ok(ok, ok ? title : `${title}: ${details}`),
          note: (text) => t.comment(text),
        },
        { abi, without, profiles: ['main', 'none', 'proc', 'full'] },
      )
    },
  )
}
