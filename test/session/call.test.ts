import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import { Exchange } from '../../src/core/exchange.ts'
import { localNotification, localRequest, localResult } from '../../src/core/local.ts'
import { type Wire, wireLength } from '../../src/core/wire.ts'
import { type CallHome, SessionCall } from '../../src/session/call.ts'
import { mainStream, ReplayBuffer } from '../../src/session/replay.ts'

/** A POST that becomes a stream. */
class Post extends Exchange {
  attached = true
  streaming = false
  readonly outlet = undefined
  readonly queuedBytes = 0
  readonly pulse = 0
  destroy(): void {}
  readonly sent: [number, string | undefined][] = []
  onceDrained(): void {}
  onGone(): void {}
  setHeader(): void {}
  begin(): void {
    this.streaming = true
  }
  send(wire: Wire, eventId?: string): void {
    this.sent.push([wireLength(wire), eventId])
  }
  protected writeAnswer(wire: Wire, eventId?: string): void {
    this.send(wire, eventId)
  }
  protected writeError(): void {}
  protected writeNothing(): void {}
}

function streamedCall(): { call: SessionCall; post: Post; replay: ReplayBuffer } {
  const replay = new ReplayBuffer(1000, () => {})
  const home: CallHome = {
    replay,
    primes: true,
    admitWrite: () => true,
    wrote: () => {},
    dropped: () => {},
    initialized: () => {},
    settled: () => {},
  }
  const deadline = { timeoutMs: 1000, maxMs: 1000, inputMs: 1000 }
  const post = new Post()
  const call = new SessionCall('n0', localRequest('tools/call', { name: 'x' }), post, deadline, home)
  call.send(localNotification('notifications/message', { level: 'info' }).wire)
  return { call, post, replay }
}

const endings: Record<string, (call: SessionCall) => void> = {
  answered: (call) => call.answer(localResult('7', {})),
  failed: (call) => call.fail(new SidecarError('ERR_TIMEOUT')),
  cancelled: (call) => call.cancel(),
}

for (const [name, end] of Object.entries(endings)) {
  t.test(`a call that was ${name} leaves nothing of its stream once its events are gone`, async (t) => {
    const { call, replay } = streamedCall()
    t.equal(call.stream, 1)
    t.ok(replay.knows(1))
    end(call)
    for (let i = 0; i < 20; i++) replay.append(mainStream, 'x'.repeat(100))
    t.same(replay.after(1, 0), [])
    t.notOk(replay.knows(1), 'or a session with many such calls grows without bound')
  })
}

t.test('what precedes the answer and the answer are numbered on one stream', async (t) => {
  const { call, post, replay } = streamedCall()
  call.answer(localResult('7', {}))
  t.same(
    post.sent.map(([, id]) => id),
    ['1-1', '1-2'],
  )
  t.same(
    replay.after(1, 0).map(({ id }) => id),
    ['1-1', '1-2'],
  )
})
