// Tells again, at the end of a long log, what has failed in it: `node failures.mjs LOG`.
// Reads TAP (each test point that failed, under the names of the tests around it, with its diagnosis) and the lines
// `not ok - NAME` of the other suites. A test that failed because of one within it is not told a second time.
import { readFileSync } from "node:fs"

const LONGEST_DIAGNOSIS = 40
const lines = readFileSync(process.argv[2], "utf8").split("\n")
/** The tests around a line, by their depth. */
const around = []
/** How deep the last failure was that no test around it has been blamed for yet. */
let below = 0

lines.forEach((line, index) => {
  const [, indent, text] = /^( *)(.*)$/.exec(line)
  const depth = Math.floor(indent.length / 4)
  const subtest = /^# Subtest: (.*)$/.exec(text)
  if (subtest) {
    around.length = depth
    around[depth] = subtest[1]
    return
  }
  if (!/^not ok\b/.test(text)) return
  const parent = depth < below
  below = depth
  if (parent) return
  console.log(`${["", ...around.slice(0, depth)].join("\n  in ")}\n  ${text}`)
  if (lines[index + 1]?.trim() !== "---") return
  const diagnosis = lines.slice(index + 2, index + 2 + LONGEST_DIAGNOSIS)
  for (const told of diagnosis) {
    if (told === `${indent}  ...`) break
    console.log(`    ${told.slice(indent.length)}`)
  }
})
