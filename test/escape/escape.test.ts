/** Every row of the list of escapes, from a real server behind the built sidecar, as root and as another user. */
import t from 'tap'
import { attemptAll, leftOut } from './run.ts'
import { missing } from './sidecar.ts'

// Minutes where nobody else wants the processors, several times as long elsewhere.
t.setTimeout(900_000)
const nobody = 65534
const uids = process.getuid?.() === 0 ? [0, nobody] : [process.getuid?.() ?? nobody]
const reason = missing()
if (uids.length === 1)
  leftOut(
    { check: (ok, title) => t.ok(ok, title), note: (text) => t.comment(text) },
    'only root can try it as root and as another user',
  )

for (const uid of uids) {
  t.test(`a server cannot leave its sandbox, as uid ${uid}`, { skip: reason ?? false }, async (t) => {
    await attemptAll(uid, {
      found: ({ row, title, verdict, outcome }) => {
        if (verdict === 'reported') t.pass(`${row} ${title}: not enforceable, and reported as ${outcome}`)
        else t.ok(verdict === 'held', `${row} ${title}: ${outcome}`)
      },
      check: (ok, title, details) => t.ok(ok, ok ? title : `${title}: ${details}`),
      note: (text) => t.comment(text),
    })
  })
}
