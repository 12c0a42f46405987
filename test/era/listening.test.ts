import fc from 'fast-check'
import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import { localNotification } from '../../src/core/local.ts'
import {
  type ListenEffect,
  type ListenEvent,
  type ListenState,
  maxSubscriptions,
  silence,
  step,
} from '../../src/era/listening.ts'
import { holds } from '../support/property.ts'

/** The machine, and what it has done since it was last asked. */
class Machine {
  state: ListenState = silence()
  #effects: ListenEffect[] = []

  feed(...events: ListenEvent[]): this {
    for (const event of events) {
      const { state, effects } = step(this.state, event)
      this.state = state
      this.#effects.push(...effects)
    }
    return this
  }

  done(): ListenEffect[] {
    return this.#effects.splice(0)
  }
}

const on = (wish: number, uri: string): ListenEvent => ({ type: 'wish', wish, uri, on: true })
const off = (wish: number, uri: string): ListenEvent => ({ type: 'wish', wish, uri, on: false })
const acknowledged = (listen: number, ...uris: string[]): ListenEvent => ({
  type: 'acknowledged',
  listen,
  uris,
})
const ended = (listen: number, lastedMs = 0, final = false): ListenEvent => {
  return { type: 'ended', listen, error: new SidecarError('ERR_UPSTREAM_MESSAGE'), lastedMs, final }
}

t.test('each change takes a new stream, and the old one ends when it is there', async (t) => {
  const machine = new Machine().feed(on(1, 'a'))
  t.same(machine.done(), [{ type: 'open', listen: 1, uris: ['a'], wishes: [1] }])
  machine.feed(acknowledged(1, 'a'))
  t.same(machine.done(), [{ type: 'done', wish: 1 }])
  machine.feed(on(2, 'b'))
  t.same(machine.done(), [{ type: 'open', listen: 2, uris: ['a', 'b'], wishes: [2] }])
  machine.feed(acknowledged(2, 'a', 'b'))
  t.same(machine.done(), [
    { type: 'cancel', listen: 1 },
    { type: 'done', wish: 2 },
  ])
  machine.feed(off(3, 'a'))
  t.same(machine.done(), [{ type: 'open', listen: 3, uris: ['b'], wishes: [3] }])
  machine.feed(acknowledged(3, 'b'))
  machine.done()
  machine.feed(off(4, 'b'))
  t.same(machine.done(), [
    { type: 'cancel', listen: 3 },
    { type: 'done', wish: 4 },
  ])
})

t.test('what changes nothing takes no stream', async (t) => {
  const machine = new Machine().feed(on(1, 'a'), acknowledged(1, 'a'))
  machine.done()
  machine.feed(on(2, 'a'), off(3, 'other'))
  t.same(machine.done(), [
    { type: 'done', wish: 2 },
    { type: 'done', wish: 3 },
  ])
})

t.test('wishes that come meanwhile are fulfilled together', async (t) => {
  const machine = new Machine().feed(on(1, 'a'), on(2, 'b'), on(3, 'c'), off(4, 'b'))
  machine.done()
  machine.feed(acknowledged(1, 'a'))
  t.same(machine.done(), [
    { type: 'done', wish: 1 },
    { type: 'open', listen: 2, uris: ['a', 'c'], wishes: [2, 3, 4] },
  ])
  machine.feed(acknowledged(2, 'a', 'c'))
  t.same(
    machine.done().map(({ type }) => type),
    ['cancel', 'done', 'done', 'done'],
  )
})

t.test('a resource that the server does not tell about', async (t) => {
  const machine = new Machine().feed(on(1, 'a'), acknowledged(1))
  t.match(machine.done().slice(1), [
    { type: 'refuse', wish: 1, error: { code: 'ERR_PARAMS' } },
    { type: 'cancel', listen: 1 },
  ])
  t.equal(machine.state.uris.size, 0)
})

t.test('a stream that ends is opened again, later and later', async (t) => {
  const machine = new Machine().feed(on(1, 'a'), acknowledged(1, 'a'))
  machine.done()
  const waits: number[] = []
  for (let listen = 1; listen < 9; listen++) {
    machine.feed(ended(listen), { type: 'resumed' })
    const [wait, ...opened] = machine.done() as unknown as [{ ms: number }]
    waits.push(wait.ms)
    t.same(opened, [{ type: 'open', listen: listen + 1, uris: ['a'], wishes: [] }])
    machine.feed(acknowledged(listen + 1, 'a'))
    machine.done()
  }
  t.same(waits, [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000])
  machine.feed(ended(9, 60_000))
  t.same(machine.done(), [{ type: 'wait', ms: 1000 }], 'after one that lasted, soon')
  machine.feed({ type: 'resumed' }, ended(10, 0, true), { type: 'resumed' })
  t.same(
    machine.done().map(({ type }) => type),
    ['open', 'open'],
    'not by itself if there is no point',
  )
})

t.test('a stream that is not acknowledged is given up', async (t) => {
  const machine = new Machine().feed(on(1, 'a'), acknowledged(1, 'a'), on(2, 'b'))
  machine.done()
  machine.feed({ type: 'silent', listen: 2 })
  t.match(machine.done(), [
    { type: 'cancel', listen: 2 },
    { type: 'refuse', wish: 2, error: { code: 'ERR_TIMEOUT' } },
  ])
  t.equal(machine.state.active, 1, 'the old one goes on')
})

t.test(`at most ${maxSubscriptions} resources`, async (t) => {
  const machine = new Machine()
  for (let i = 0; i < maxSubscriptions; i++) machine.feed(on(i, `u${i}`))
  machine.feed(acknowledged(1, 'u0'))
  machine.feed(acknowledged(2, ...Array.from({ length: maxSubscriptions }, (_, i) => `u${i}`)))
  machine.done()
  machine.feed(on(-1, 'more'), on(-2, 'u5'))
  t.match(machine.done(), [
    { type: 'refuse', wish: -1, error: { code: 'ERR_OVERLOADED' } },
    { type: 'done', wish: -2 },
  ])
})

t.test('after the end nothing happens', async (t) => {
  const machine = new Machine().feed(on(1, 'a'), acknowledged(1, 'a'), on(2, 'b'))
  machine.done()
  machine.feed({ type: 'closed' })
  t.same(machine.done(), [
    { type: 'cancel', listen: 1 },
    { type: 'cancel', listen: 2 },
  ])
  machine.feed(acknowledged(2, 'b'), on(3, 'c'), { type: 'resumed' }, ended(1))
  t.same(machine.done(), [])
})

const move = fc.record({
  what: fc.constantFrom(
    ...[
      'on',
      'on',
      'off',
      'forget',
      'hear',
      'hear',
      'hear',
      'hear',
      'update',
      'update',
      'update',
      'end',
      'silent',
      'resume',
    ],
  ),
  uri: fc.constantFrom('a', 'b', 'c', 'd'),
  n: fc.nat(9),
})

t.test('whatever happens, each wish gets one answer, and no update is missed or comes twice', async (t) => {
  holds(
    t,
    fc.property(fc.array(move, { maxLength: 60 }), fc.subarray(['a', 'b', 'c', 'd']), (moves, served) => {
      const machine = new Machine()
      // The server: streams that it has, with what they are for; what it has said comes in the order it was said.
      const streams = new Map<number, { readonly uris: readonly string[] }>()
      const said: ListenEvent[] = []
      const open = new Set<number>()
      const waiting = new Set<number>()
      const confirmed = new Map<number, { uri: string; on: boolean }>()
      const subscribed = new Set<string>()
      let wishes = 0
      let updates = 0
      const heard = new Map<string, number>()
      let pausing = false
      const check = (): void => {
        for (const effect of machine.done()) {
          switch (effect.type) {
            case 'open': {
              const uris = effect.uris.filter((uri) => served.includes(uri))
              streams.set(effect.listen, { uris })
              open.add(effect.listen)
              said.push({ type: 'acknowledged', listen: effect.listen, uris })
              if (open.size > 2) throw new Error('too many streams')
              break
            }
            case 'cancel':
              if (!open.delete(effect.listen)) throw new Error('cancelled what was not open')
              streams.delete(effect.listen)
              break
            case 'done': {
              if (!waiting.delete(effect.wish)) throw new Error('answered twice')
              const { uri, on: isOn } = confirmed.get(effect.wish) as { uri: string; on: boolean }
              if (isOn) subscribed.add(uri)
              else subscribed.delete(uri)
              break
            }
            case 'refuse':
              if (!waiting.delete(effect.wish)) throw new Error('answered twice')
              break
            case 'deliver': {
              const { params } = effect.message.parsed() as { params: { n: string } }
              heard.set(params.n, (heard.get(params.n) ?? 0) + 1)
              break
            }
            case 'wait':
              if (pausing) throw new Error('two pauses')
              pausing = true
          }
        }
      }
      const hear = (): void => {
        const next = said.shift()
        if (next === undefined) return
        if ('listen' in next && !open.has(next.listen)) return
        machine.feed(next)
        check()
      }
      const certain: string[] = []
      for (const { what, uri, n } of moves) {
        switch (what) {
          case 'on':
          case 'off':
            waiting.add(++wishes)
            confirmed.set(wishes, { uri, on: what === 'on' })
            machine.feed(what === 'on' ? on(wishes, uri) : off(wishes, uri))
            break
          case 'forget':
            if (waiting.delete(n)) machine.feed({ type: 'forget', wish: n })
            break
          case 'hear':
            hear()
            break
          case 'update': {
            const key = `${uri}${++updates}`
            const for_ = [...streams].filter(([, stream]) => stream.uris.includes(uri))
            const message = localNotification('notifications/resources/updated', { uri, n: key })
            for (const [listen] of for_) said.push({ type: 'notified', listen, message })
            // One whose stream may still break is not certain; the schedule goes on without breaking it below.
            if (subscribed.has(uri) && for_.length > 0) certain.push(key)
            break
          }
          case 'end': {
            const listen = [...open][n % Math.max(1, open.size)]
            if (listen === undefined) break
            // Messages on their way are lost with the stream.
            for (const each of said.splice(0)) {
              if (!('listen' in each) || each.listen !== listen) said.push(each)
              else if (each.type === 'notified') {
                const { params } = each.message.parsed() as { params: { n: string } }
                const at = certain.indexOf(params.n)
                if (at >= 0) certain.splice(at, 1)
              }
            }
            open.delete(listen)
            streams.delete(listen)
            machine.feed(ended(listen))
            break
          }
          case 'silent':
            break
          default:
            if (pausing) {
              pausing = false
              machine.feed({ type: 'resumed' })
            }
        }
        check()
      }
      for (let i = 0; i < 500 && said.length > 0; i++) hear()
      if (waiting.size > 0) throw new Error('a wish without an answer')
      for (const count of heard.values()) if (count > 1) throw new Error('an update came twice')
      const lost = certain.filter((key) => !heard.has(key) && machine.state.uris.has(key.slice(0, 1)))
      if (lost.length > 0) throw new Error(`lost ${lost.join()}`)
      return true
    }),
    2000,
  )
})
