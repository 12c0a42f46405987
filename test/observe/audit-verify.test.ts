import { createReadStream, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import t from 'tap'
import { Chain, lineHash } from '../../src/observe/audit-chain.ts'
import {
  auditVerifyReport,
  type Verified,
  type VerifyOptions,
  verifyAudit,
} from '../../src/observe/audit-verify.ts'

const event = (i: number, type = 'mcp_ping'): string => `{"metadata":{"auditId":"${i}"},"type":"${type}"`

function chained(count: number, chain = new Chain()): string[] {
  return Array.from({ length: count }, (_, i) => chain.next(event(i)))
}

const source = (text: string, name = '-') => ({ name, bytes: Readable.from([Buffer.from(text)]) })
const joined = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('')
const verify = (text: string, options?: VerifyOptions): Promise<Verified> =>
  verifyAudit(source(text), options)
const messages = ({ problems }: Verified): string[] =>
  problems.map(({ line, message }) => `${line}: ${message}`)

t.test('a log as it was written is whole', async (t) => {
  const lines = chained(5)
  const last = { seq: 5, hash: lineHash(lines[4] as string) }
  const verified = await verify(joined(lines))
  t.match(verified, { ok: true, lines: 5, problems: [], notes: [], problemCount: 0, last, first: { seq: 1 } })
  t.same(auditVerifyReport(verified), [
    `the last line is number 5: ${last.hash}`,
    '5 lines, the chain is whole',
  ])
})

t.test('what was done to it is found', async (t) => {
  const lines = chained(6)
  const [a = '', b = '', c = '', d = '', e = ''] = lines
  const found = async (...changed: string[]): Promise<string[]> => messages(await verify(joined(changed)))
  t.same(await found(a, b, c.replace('ping', 'pong'), d), [
    '4: the line before is not the one that this one was written after: one was changed',
  ])
  t.same(await found(a, b, d, e), ['3: number 4 follows 2: 1 line missing'])
  t.same(await found(a, e), ['2: number 5 follows 1: 3 lines missing'])
  t.match(await found(a, c, b, d), [
    /2: number 3 follows 1/,
    /3: number 2 follows 3: lines were moved/,
    /4: number 4/,
  ])
  t.match(await found(a, b, b, c), [/3: number 2 follows 2: lines were moved, repeated or put in/])
  t.match(await found(a, 'hello', b), [/2: this is no audit event, or it was changed/])
  t.match(await found(a, '', b), [/2: this is no audit event/])
  t.match(await found(a, 'x', 'y'), [/^2: this is no/, /^3: this is no/])
  t.match(await found(a, b.replace('"seq":2', '"seq":7')), [/2: number 7 follows 1/])
  t.match(await found(a, b, ...chained(2)), [/3: a new chain begins here/])
  t.match(await found(b.replace('"seq":2', '"seq":1')), [/1: number 1 cannot follow sha256/])
})

t.test(
  'any change of a byte, any line taken out, put in or moved is found, if a line follows it',
  async (t) => {
    const lines = chained(8)
    const text = joined(lines)
    const lastLine = text.length - (lines[7] as string).length - 1
    const edit = fc.record({ at: fc.nat(lastLine - 1), byte: fc.integer({ min: 0, max: 255 }) })
    await fc.assert(
      fc.asyncProperty(edit, async ({ at, byte }) => {
        const bytes = Buffer.from(text)
        const same = bytes[at] === byte
        bytes[at] = byte
        const verified = await verifyAudit({ name: '-', bytes: Readable.from([bytes]) })
        return verified.ok === same
      }),
      { numRuns: 200 },
    )
    const shuffled = fc.shuffledSubarray(lines.slice(0, 7), { minLength: 0, maxLength: 7 })
    await fc.assert(
      fc.asyncProperty(shuffled, async (some) => {
        const changed = joined([...some, lines[7] as string])
        const { ok } = await verify(changed)
        // Without its beginning it still is one piece, and says what it follows.
        const tail = joined(lines.slice(8 - some.length - 1))
        return ok === (changed === tail)
      }),
      { numRuns: 100 },
    )
    t.pass('all were found')
  },
)

t.test('what is missing at the end is found with what was kept elsewhere', async (t) => {
  const lines = chained(5)
  const cut = joined(lines.slice(0, 3))
  const hash = lineHash(lines[4] as string)
  t.equal((await verify(cut)).ok, true, 'and not without')
  for (const options of [{ expectSeq: 5 }, { expectHash: hash }, { expectSeq: 5, expectHash: hash }]) {
    t.equal((await verify(joined(lines), options)).ok, true)
    const verified = await verify(cut, options)
    t.match(messages(verified), [/^3: the line that was expected is not there: (number 5)?(, )?(sha256:)?/])
    t.match(auditVerifyReport(verified).at(-1), '3 lines, 1 problem')
  }
  t.equal((await verify(joined(lines), { expectSeq: 2 })).ok, true, 'the log may have grown since')
  t.equal((await verify(joined(lines), { expectSeq: 4, expectHash: hash })).ok, false)
})

t.test('a chain that was computed anew is found with a hash that was kept elsewhere', async (t) => {
  const kept = lineHash(chained(5)[3] as string)
  const chain = new Chain()
  const forged = Array.from({ length: 5 }, (_, i) => chain.next(event(i, i === 1 ? 'forged' : 'mcp_ping')))
  t.equal((await verify(joined(forged))).ok, true)
  t.equal((await verify(joined(forged), { expectHash: kept })).ok, false)
})

t.test('a line that a crash cut off is no fault, if the log says so itself', async (t) => {
  const [a = '', b = '', c = ''] = chained(3)
  const torn = b.slice(0, 30)
  const resumed = new Chain({ seq: 1, hash: lineHash(torn) })
  const rest = [resumed.next(event(9, 'chain_resumed')), resumed.next(event(10))]
  const verified = await verify(joined([a, torn, ...rest]))
  t.match(verified, { ok: true, notes: [{ line: 2, message: 'a crash cut this line off' }] })
  t.match(auditVerifyReport(verified)[0], /^note: -:2: a crash/)
  t.equal((await verify(joined([a, torn.replace('ping', 'pong'), 'x', ...rest]))).ok, false)
  const other = new Chain({ seq: 1, hash: lineHash(torn) }).next(event(9, 'mcp_ping'))
  t.equal((await verify(joined([a, torn, other]))).ok, false, 'and not if it does not')
  const whole = new Chain({ seq: 2, hash: lineHash(b) }).next(event(9, 'chain_resumed'))
  t.match(await verify(joined([a, b, whole])), { ok: true, notes: [] })
  t.match(await verify(joined([a, b]) + c.slice(0, 20)), {
    ok: true,
    lines: 3,
    last: { seq: 2 },
    notes: [{ line: 3, message: 'the file ends in the middle of a line' }],
  })
})

t.test('files of a log that was rotated are one chain', async (t) => {
  const [a = '', b = '', c = '', d = ''] = chained(4)
  const both = (old: string, next: string): Promise<Verified> =>
    verifyAudit([source(old, 'old'), source(next, 'new')])
  t.match(await both(joined([a, b]), joined([c, d])), { ok: true, lines: 4 })
  t.match(await both(joined([a, b]) + c.slice(0, 9), joined([c, d])), {
    ok: true,
    notes: [{ file: 'old', line: 3 }],
  })
  t.match(await both(joined([a, b]), joined([d])), { ok: false, problems: [{ file: 'new', line: 1 }] })
  const alone = await verify(joined([c, d]))
  t.match(alone, { ok: true, first: { seq: 3, prev: lineHash(b) } })
  t.match(
    auditVerifyReport(alone)[0],
    `the first line is number 3 and follows a line elsewhere: ${lineHash(b)}`,
  )
})

t.test('on standard output each start begins a chain, where that is said', async (t) => {
  const text = joined([...chained(2), ...chained(3)])
  t.equal((await verify(text, { restarts: true })).ok, true)
  t.equal((await verify(text)).ok, false)
})

t.test('problems are counted, and not all shown', async (t) => {
  const verified = await verify('x\n'.repeat(500))
  t.equal(verified.problems.length, 100)
  t.equal(verified.problemCount, 500)
  t.match(auditVerifyReport(verified).slice(-2), ['and 400 more', '500 lines, 500 problems'])
  t.match(await verify(''), { ok: true, lines: 0, notes: [{ message: 'there is nothing in it' }] })
})

t.test('files are read piece by piece, lines across pieces included', async (t) => {
  const path = join(t.testdir(), 'audit.log')
  const chain = new Chain()
  const lines = Array.from({ length: 2000 }, (_, i) => chain.next(`${event(i)},"pad":"${'x'.repeat(i)}"`))
  writeFileSync(path, joined(lines))
  t.match(await verifyAudit(path), { ok: true, lines: 2000, last: { seq: 2000 } })
  const small = { name: 'small', bytes: createReadStream(path, { highWaterMark: 7, end: 19_999 }) }
  t.match(await verifyAudit(small), { ok: true, notes: [{ message: /in the middle/ }] })
  await t.rejects(verifyAudit(join(path, 'no')), { code: 'ENOTDIR' })
})

t.test('a line without end takes no memory without end', async (t) => {
  const block = Buffer.alloc(1024 * 1024, 0x78)
  const endless = Readable.from(
    (function* () {
      for (let i = 0; i < 100; i++) yield block
    })(),
  )
  const before = process.memoryUsage().arrayBuffers
  const verified = await verifyAudit({ name: '-', bytes: endless })
  t.ok(process.memoryUsage().arrayBuffers - before < 100 * 1024 * 1024)
  t.match(verified, { lines: 1, last: undefined })
})
