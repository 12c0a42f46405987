import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import { Exchange, type Outcome } from '../../src/core/exchange.ts'
import { localResult } from '../../src/core/local.ts'

/** Writes into a list. */
class Recorded extends Exchange {
  readonly written: string[] = []
  readonly attached = true
  readonly streaming = false
  readonly outlet = undefined
  readonly queuedBytes = 0
  readonly pulse = 0
  destroy(): void {}
  broken = false
  onceDrained(): void {}
  onGone(): void {}
  begin(): void {}
  send(wire: string): void {
    this.written.push(`send ${wire}`)
  }
  setHeader(): void {}
  protected writeAnswer(wire: string, eventId?: string): void {
    this.#write(`answer ${wire} ${eventId}`)
  }
  protected writeError(error: SidecarError, eventId?: string): void {
    this.#write(`error ${error.code} ${eventId}`)
  }
  protected writeNothing(): void {
    this.#write('nothing')
  }
  #write(text: string): void {
    if (this.broken) throw new Error('the socket is gone')
    this.written.push(text)
  }
}

function recorded(): { exchange: Recorded; outcomes: [Outcome, SidecarError | undefined][] } {
  const exchange = new Recorded()
  const outcomes: [Outcome, SidecarError | undefined][] = []
  exchange.onSettled((outcome, error) => outcomes.push([outcome, error]))
  return { exchange, outcomes }
}

const timeout = new SidecarError('ERR_TIMEOUT')

t.test('it ends once, with the first of answer, failure and nothing', async (t) => {
  const ends: [string, (exchange: Exchange) => void, string, Outcome][] = [
    ['answer', (each) => each.answer('{}', false, '1-1'), 'answer {} 1-1', 'ok'],
    ['error answer', (each) => each.answer('{}', true), 'answer {} undefined', 'error'],
    ['failure', (each) => each.fail(timeout, '1-2'), 'error ERR_TIMEOUT 1-2', 'ERR_TIMEOUT'],
    ['nothing', (each) => each.finish('cancelled'), 'nothing', 'cancelled'],
  ]
  for (const [first, end, text, outcome] of ends) {
    const { exchange, outcomes } = recorded()
    t.notOk(exchange.settled)
    end(exchange)
    t.ok(exchange.settled)
    for (const [, again] of ends) again(exchange)
    t.same(exchange.written, [text], first)
    t.same(outcomes, [[outcome, first === 'failure' ? timeout : undefined]], first)
  }
})

t.test('observers are told after it was written, in the order they came', async (t) => {
  const exchange = new Recorded()
  const order: string[] = []
  for (const name of ['a', 'b'])
    exchange.onSettled(() => order.push(`${name} after ${exchange.written.length}`))
  exchange.answer('{}', false)
  t.same(order, ['a after 1', 'b after 1'])
})

t.test('an observer that ends it again changes nothing', async (t) => {
  const { exchange, outcomes } = recorded()
  exchange.onSettled(() => exchange.fail(timeout))
  exchange.answer('{}', false)
  t.same(exchange.written, ['answer {} undefined'])
  t.equal(outcomes.length, 1)
})

t.test('observers learn of the end although it could not be written', async (t) => {
  for (const end of [
    (each: Exchange) => each.answer('{}', false),
    (each: Exchange) => each.fail(timeout),
    (each: Exchange) => each.finish('ok'),
  ]) {
    const { exchange, outcomes } = recorded()
    exchange.broken = true
    try {
      end(exchange)
    } catch {
      // Whoever ended it may learn of it, too.
    }
    t.equal(outcomes.length, 1, 'what it held in the limits is given back')
  }
})

t.test('filters see the answer last pushed first, and it is unchanged without any', async (t) => {
  const exchange = new Recorded()
  const answer = localResult('1', { list: [] })
  t.equal(exchange.filtered(answer), answer)
  for (const name of ['outer', 'inner']) {
    exchange.onAnswer((message) => {
      const { result } = message.parsed() as { result: { list: string[] } }
      return localResult('1', { list: [...result.list, name] })
    })
  }
  t.same(exchange.filtered(answer).parsed(), {
    jsonrpc: '2.0',
    id: 1,
    result: { list: ['inner', 'outer'] },
  })
})
