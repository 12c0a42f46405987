/** The attempts of the escape suite succeed where nothing confines them: what they show is the sandbox. */
import t from 'tap'
import { withoutSandbox } from './run.ts'

// Minutes where nobody else wants the processors, several times as long elsewhere.
t.setTimeout(900_000)
const nobody = 65534
const uids = process.getuid?.() === 0 ? [0, nobody] : [process.getuid?.() ?? nobody]

for (const uid of uids) {
  t.test(
    `attempts succeed without a sandbox, as uid ${uid}`,
    { skip: process.platform !== 'linux' && 'they are of Linux' },
    async (t) => {
      await withoutSandbox(uid, {
        found: () => {},
        check: (ok, title, details) => t.ok(ok, ok ? title : `${title}: ${details}`),
        note: (text) => t.comment(text),
      })
    },
  )
}
