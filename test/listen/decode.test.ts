import fc from 'fast-check'
import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import type { Exchange } from '../../src/core/exchange.ts'
import { localRequest } from '../../src/core/local.ts'
import { batchVersion, legacyVersions } from '../../src/core/mcp.ts'
import { Scanner } from '../../src/core/scan.ts'
import { anonymous, type Identified, type Parsed } from '../../src/core/types.ts'
import { checkVersionHeader, decode, submit } from '../../src/listen/decode.ts'
import { cpuMs } from '../support/cost.ts'
import { messageText } from '../support/messages.ts'
import { holds, shown } from '../support/property.ts'

function refusal(text: string, version: string | undefined, maxBatch = 100): string | undefined {
  try {
    decode(Buffer.from(text), () => version, maxBatch)
    return undefined
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown.code
    throw thrown
  }
}

const versions = [undefined, ...legacyVersions]
const note = '{"jsonrpc":"2.0","method":"a"}'

t.test('one message is read whatever the version', async (t) => {
  holds(
    t,
    fc.property(messageText, fc.constantFrom(...versions), (text, version) => {
      const { messages, batch } = decode(Buffer.from(text), () => version, 1)
      return !batch && messages.length === 1
    }),
  )
})

t.test('the version of the session is asked for only when it matters', async (t) => {
  const version = (): never => {
    throw new SidecarError('ERR_SESSION_UNKNOWN')
  }
  t.equal(decode(Buffer.from(` ${note}`), version, 1).messages.length, 1)
  t.throws(() => decode(Buffer.from('{'), version, 1), { code: 'ERR_PARSE' })
  t.throws(() => decode(Buffer.from(`\r\n\t [${note}]`), version, 1), { code: 'ERR_SESSION_UNKNOWN' })
})

t.test('batches are for sessions of 2025-03-26 alone', async (t) => {
  for (const version of versions)
    t.equal(
      refusal(`[${note}]`, version),
      version === batchVersion ? undefined : 'ERR_BATCH',
      String(version),
    )
})

t.test('a batch has at least one message and at most as many as are allowed', async (t) => {
  const batch = (n: number): string => `[${Array<string>(n).fill(note).join(',')}]`
  t.equal(refusal('[]', batchVersion), 'ERR_INVALID_REQUEST')
  t.equal(refusal(' [ ] ', batchVersion), 'ERR_INVALID_REQUEST')
  t.equal(refusal(batch(3), batchVersion, 3), undefined)
  t.equal(refusal(batch(4), batchVersion, 3), 'ERR_INVALID_REQUEST')
  t.equal(decode(Buffer.from(batch(3)), () => batchVersion, 3).messages.length, 3)
})

t.test('initialize does not come in a batch, however it is spelled', async (t) => {
  for (const method of ['initialize', 'init\\u0069alize']) {
    const initialize = `{"jsonrpc":"2.0","id":1,"method":"${method}"}`
    t.equal(refusal(`[${note},${initialize}]`, batchVersion), 'ERR_INVALID_REQUEST')
    t.equal(refusal(initialize, undefined), undefined)
  }
})

t.test('what is no message is refused with the code for it', async (t) => {
  t.equal(refusal('{', undefined), 'ERR_PARSE')
  t.equal(refusal('', undefined), 'ERR_PARSE')
  t.equal(refusal('{}', undefined), 'ERR_INVALID_REQUEST')
})

t.test(
  'a batch that is not allowed, or too long, costs little more than to see that it is one',
  async (t) => {
    const bytes = Buffer.from(`[${`${note},`.repeat(50_000)}${note}]`)
    const scan = cpuMs(() => new Scanner(bytes).skip())
    for (const version of [undefined, batchVersion]) {
      const refused = cpuMs(() => t.throws(() => decode(bytes, () => version, 100)))
      t.ok(refused < 4 * scan, `${refused.toFixed(1)} ms, the scan alone ${scan.toFixed(1)} ms`)
    }
  },
)

t.test('a version header names a version spoken here, or is absent', async (t) => {
  checkVersionHeader(undefined)
  for (const version of legacyVersions) checkVersionHeader(version)
  const others = ['', '2026-07-28', '2025-06-18 ', '2025-06-18, 2025-06-18', '1.0', '2025-6-18', 'latest']
  for (const header of others)
    t.throws(() => checkVersionHeader(header), { code: 'ERR_VERSION' }, shown(header))
  t.throws(() => checkVersionHeader(['2025-06-18', '2025-03-26']), { code: 'ERR_VERSION' })
  t.throws(() => checkVersionHeader(['2025-06-18']), { code: 'ERR_VERSION' })
})

function submitted(next: (decoded: Parsed) => void | Promise<void>) {
  const failures: SidecarError[] = []
  const refusals: SidecarError[] = []
  const exchange = { fail: (error: SidecarError) => failures.push(error) } as unknown as Exchange
  const identified = { requestId: 'r', principal: anonymous, path: '/mcp' } as unknown as Identified
  const message = localRequest('ping', {})
  const pending = submit(next, identified, { message, sessionId: 's', exchange }, (error) =>
    refusals.push(error),
  )
  return { pending, failures, refusals, exchange, message }
}

t.test('a message goes down the path with its caller, its session and its way back', async (t) => {
  const seen: Parsed[] = []
  const { pending, failures, refusals, exchange, message } = submitted((decoded) => void seen.push(decoded))
  t.equal(pending, undefined, 'nothing to wait for')
  t.equal(seen.length, 1)
  t.match(seen[0], { requestId: 'r', principal: anonymous, path: '/mcp', sessionId: 's' })
  t.equal(seen[0]?.message, message)
  t.equal(seen[0]?.exchange, exchange)
  t.same([failures, refusals], [[], []])
})

t.test('what a stage throws, now or later, becomes the answer, and is told once', async (t) => {
  const error = new SidecarError('ERR_DENIED')
  const stages = {
    now: () => {
      throw error
    },
    later: () => Promise.reject(error),
  }
  for (const [when, stage] of Object.entries(stages)) {
    const { pending, failures, refusals } = submitted(stage)
    await pending
    t.same(failures, [error], when)
    t.same(refusals, [error], when)
  }
})

t.test('a mistake of ours becomes an internal error, not a crash', async (t) => {
  const { failures } = submitted(() => {
    throw new TypeError('oops')
  })
  t.match(failures, [{ code: 'ERR_INTERNAL', detail: 'oops' }])
})
