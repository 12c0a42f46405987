import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Chain, lineHash } from '../../src/observe/audit-chain.ts'
import { AuditError, AuditFile } from '../../src/observe/audit-file.ts'
import { type LogLine, recordingLogger } from '../support/sidecar.ts'

const event = '{"metadata":{"auditId":"x"},"type":"mcp_ping"'
const lines = (count: number, pad = 0): string[] => {
  const chain = new Chain()
  return Array.from({ length: count }, () => chain.next(`${event},"pad":"${'x'.repeat(pad)}"`))
}

function setUp(t: { testdir(): string }) {
  const dir = t.testdir()
  const logs: LogLine[] = []
  const path = join(dir, 'audit.log')
  const open = (file = path): AuditFile => new AuditFile(file, recordingLogger(logs))
  return { dir, path, logs, open }
}

const write = (
  file: AuditFile,
  text: string,
  from = 0,
): Promise<{ error: Error | undefined; position: number }> =>
  new Promise((resolve) =>
    file.write(Buffer.from(text), from, (error, position) => resolve({ error, position })),
  )

t.test('a file is made for its owner alone, and added to', async (t) => {
  const { path, open } = setUp(t)
  const file = open()
  t.equal(statSync(path).mode & 0o7777, 0o600)
  t.same(file.tail, { last: undefined, torn: undefined })
  t.same(await write(file, 'ab\n'), { error: undefined, position: 3 })
  t.equal(file.writeSync(Buffer.from('ab\nc\n'), 3), 5)
  await file.close()
  t.equal(readFileSync(path, 'utf8'), 'ab\nc\n')
})

t.test('what is no file that only we write is refused, with the reason', async (t) => {
  const { dir, path, open } = setUp(t)
  const refused = (file: string, reason: RegExp): void => {
    t.throws(() => open(file), { name: 'AuditError', message: reason }, String(reason))
  }
  mkdirSync(join(dir, 'folder'))
  refused(join(dir, 'folder'), /folder is a folder; name a file in it|folder: is a folder/)
  refused(join(dir, 'no', 'file'), /its folder does not exist/)
  symlinkSync(path, join(dir, 'link'))
  refused(join(dir, 'link'), /is a symbolic link/)
  refused('/dev/full', /is not a regular file; for standard output say stdout/)
  execFileSync('mkfifo', [join(dir, 'fifo')])
  refused(join(dir, 'fifo'), /is not a regular file/)
  writeFileSync(path, '')
  chmodSync(path, 0o666)
  refused(path, /may be written by every user; make it 0600/)
  t.ok(new AuditError('x') instanceof Error)
})

t.test('a group that may write no longer may: a volume with an fsGroup', async (t) => {
  const { path, open } = setUp(t)
  writeFileSync(path, '')
  chmodSync(path, 0o660)
  await open().close()
  t.equal(statSync(path).mode & 0o7777, 0o640)
})

t.test("another user's file is refused", async (t) => {
  const { path, open } = setUp(t)
  writeFileSync(path, '')
  if (process.geteuid?.() === 0) {
    chownSync(path, 12345, 12345)
    t.throws(() => open(), { message: /belongs to user 12345, who can change it/ })
  } else t.throws(() => open('/etc/shadow'), { name: 'AuditError' })
})

t.test('the chain goes on from the last line that is there', async (t) => {
  const { path, open } = setUp(t)
  for (const [count, pad] of [
    [1, 0],
    [2, 0],
    [3, 70_000],
    [1, 300_000],
    [5, 65_000],
  ] as const) {
    const some = lines(count, pad)
    writeFileSync(path, `${some.join('\n')}\n`, { mode: 0o600 })
    const file = open()
    t.same(file.tail, { last: { seq: count, hash: lineHash(some.at(-1) as string) }, torn: undefined })
    await file.close()
  }
})

t.test('a line that a crash cut off is found, wherever it was cut', async (t) => {
  const { path, open } = setUp(t)
  const [first = '', second = ''] = lines(2)
  for (const cut of [1, 5, 40, second.length - 1]) {
    const torn = second.slice(0, cut)
    writeFileSync(path, `${first}\n${torn}`, { mode: 0o600 })
    const file = open()
    t.same(file.tail, { last: { seq: 1, hash: lineHash(torn) }, torn: { bytes: cut } })
    await file.close()
  }
  writeFileSync(path, `${first}\n${second}`)
  t.same(open().tail, { last: { seq: 2, hash: lineHash(second) }, torn: { bytes: second.length } })
  writeFileSync(path, Buffer.concat([Buffer.from(`${first}\n`), Buffer.alloc(4096)]))
  t.same(open().tail.torn, { bytes: 4096 }, 'zeros, as file systems leave them')
  writeFileSync(path, first.slice(0, 10))
  t.same(open().tail, { last: { seq: 0, hash: lineHash(first.slice(0, 10)) }, torn: { bytes: 10 } })
})

t.test('a file with something else in it is not added to', async (t) => {
  const { path, open } = setUp(t)
  for (const text of [
    'root:x:0:0\n',
    'hello',
    '\n',
    '\n\n',
    `${lines(1)[0]}\nhello\n`,
    '{"seq":1}\n',
    'a\nb',
  ]) {
    writeFileSync(path, text, { mode: 0o600 })
    t.throws(() => open(), { message: /does not end with an audit event/ }, JSON.stringify(text))
    t.equal(readFileSync(path, 'utf8'), text)
  }
})

t.test('it is opened anew when it was rotated; the same file stays open', async (t) => {
  const { path, logs, open } = setUp(t)
  const file = open()
  await write(file, 'a\n')
  file.reopen()
  await write(file, 'b\n')
  renameSync(path, `${path}.1`)
  await write(file, 'c\n')
  file.reopen()
  await write(file, 'd\n')
  t.equal(readFileSync(`${path}.1`, 'utf8'), 'a\nb\nc\n')
  t.equal(readFileSync(path, 'utf8'), 'd\n')
  t.equal(statSync(path).mode & 0o777, 0o600)
  t.same(logs, [])
  await file.close()
})

t.test('a line of which a part was written stands whole in the next file', async (t) => {
  const { path, open } = setUp(t)
  const file = open()
  t.same(await write(file, 'one\ntwo\nth'), { error: undefined, position: 10 })
  renameSync(path, `${path}.1`)
  file.reopen()
  t.same(await write(file, 'one\ntwo\nthree\n', 10), { error: undefined, position: 14 })
  t.equal(readFileSync(path, 'utf8'), 'three\n')
  await file.close()
})

t.test('rotated during a write, it is opened anew after it', async (t) => {
  const { path, open } = setUp(t)
  const file = open()
  const writing = write(file, 'a\n')
  renameSync(path, `${path}.1`)
  file.reopen()
  await writing
  await write(file, 'b\n')
  t.equal(readFileSync(`${path}.1`, 'utf8') + readFileSync(path, 'utf8'), 'a\nb\n')
  t.equal(readFileSync(path, 'utf8'), 'b\n')
  await file.close()
})

t.test('removed, it is made anew, so that no line goes where nobody reads', async (t) => {
  const { path, logs, open } = setUp(t)
  const file = open()
  await write(file, 'a\n')
  rmSync(path)
  await write(file, 'b\n')
  t.equal(readFileSync(path, 'utf8'), 'b\n')
  t.match(logs, [{ level: 'error', text: /was removed/ }])
  rmSync(path)
  mkdirSync(path)
  const { error, position } = await write(file, 'c\n')
  t.match(error, { name: 'AuditError', message: /is a folder/ })
  t.equal(position, 0)
  rmSync(path, { recursive: true })
  await write(file, 'c\n')
  t.equal(readFileSync(path, 'utf8'), 'c\n')
  await file.close()
})

t.test('where there is nothing to open anew, the old file goes on', async (t) => {
  const { path, logs, open } = setUp(t)
  const file = open()
  for (const [foreign, reason] of [
    ['something else\n', /does not end with an audit event/],
    [`${lines(1)[0]}\n${event}`, /ends in the middle of a line/],
  ] as const) {
    renameSync(path, `${path}.1`)
    writeFileSync(path, foreign, { mode: 0o600 })
    file.reopen()
    t.match(logs.pop(), { level: 'error', text: /was not opened anew/, fields: { reason } })
    await write(file, 'a\n')
    t.equal(readFileSync(path, 'utf8'), foreign)
    renameSync(`${path}.1`, path)
  }
  t.equal(readFileSync(path, 'utf8'), 'a\na\n')
  renameSync(path, `${path}.1`)
  writeFileSync(path, `${lines(1)[0]}\n`, { mode: 0o600 })
  file.reopen()
  t.match(logs.pop(), { level: 'warn', text: /holds other events/ })
  await file.close()
})

t.test('a change by somebody else is noticed', async (t) => {
  const { path, logs, open } = setUp(t)
  const file = open()
  await write(file, 'a\n')
  truncateSync(path)
  await write(file, 'b\n')
  t.match(logs, [
    { level: 'warn', text: /somebody else has changed the audit log/, fields: { bytes: 0, expected: 2 } },
  ])
  appendFileSync(path, 'forged\n')
  await write(file, 'c\n')
  t.equal(logs.length, 2)
  await write(file, 'd\n')
  t.equal(logs.length, 2)
  t.equal(readFileSync(path, 'utf8'), 'b\nforged\nc\nd\n')
  await file.close()
})
