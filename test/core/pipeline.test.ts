import t from 'tap'
import { type Layer, stack } from '../../src/core/pipeline.ts'

interface Raw {
  readonly path: string
}
interface Known extends Raw {
  readonly who: string
}
interface Allowed extends Known {
  readonly permit: string
}

const identify: Layer<Raw, Known> = (raw, next) => next({ ...raw, who: 'me' })
const permit: Layer<Known, Allowed> = (known, next) => next({ ...known, permit: `${known.who} may` })

t.test('layers run in the order they were pushed, each handing on what it found', async (t) => {
  const seen: Allowed[] = []
  const handle = stack<Raw>()
    .push(identify)
    .push(permit)
    .handler((allowed) => void seen.push(allowed))
  await handle({ path: '/a' })
  await handle({ path: '/b' })
  t.same(seen, [
    { path: '/a', who: 'me', permit: 'me may' },
    { path: '/b', who: 'me', permit: 'me may' },
  ])
})

t.test('a stack with a stage left out, or in the wrong order, does not compile', async (t) => {
  // @ts-expect-error: nobody has been identified
  stack<Raw>().push(permit)
  // @ts-expect-error: permitted before identified
  stack<Raw>().push(permit).push(identify)
  stack<Raw>()
    .push(identify)
    // @ts-expect-error: the handler needs what permit adds
    .handler((allowed: Allowed) => void allowed.permit)
  t.pass('tsc has checked the lines above')
})

t.test('without anything to wait for it is one synchronous call', async (t) => {
  const order: string[] = []
  const around =
    (name: string): Layer<Raw, Raw> =>
    (raw, next) => {
      order.push(`${name} in`)
      const pending = next(raw)
      order.push(`${name} out`)
      return pending
    }
  const handle = stack<Raw>()
    .push(around('a'))
    .push(around('b'))
    .handler(() => void order.push('handled'))
  t.equal(handle({ path: '' }), undefined)
  t.same(order, ['a in', 'b in', 'handled', 'b out', 'a out'])
})

t.test('a layer that waits makes the whole a promise', async (t) => {
  const wait: Layer<Raw, Raw> = async (raw, next) => {
    await Promise.resolve()
    await next(raw)
  }
  let handled = false
  const pending = stack<Raw>()
    .push(wait)
    .handler(() => {
      handled = true
    })({ path: '' })
  t.notOk(handled)
  await pending
  t.ok(handled)
})

t.test('a refusal reaches the caller and no later layer, thrown or rejected', async (t) => {
  const refuse: Layer<Raw, Raw> = () => {
    throw new Error('no')
  }
  const refuseLater: Layer<Raw, Raw> = async () => {
    throw new Error('no')
  }
  const never = (): void => void t.fail('it went on')
  t.throws(() => stack<Raw>().push(refuse).push(identify).handler(never)({ path: '' }), { message: 'no' })
  await t.rejects(Promise.resolve(stack<Raw>().push(refuseLater).handler(never)({ path: '' })), {
    message: 'no',
  })
})

t.test('stacks that share their beginning do not meet', async (t) => {
  const base = stack<Raw>().push(identify)
  const seen: string[] = []
  const one = base.handler(({ who }) => void seen.push(`one ${who}`))
  const two = base.push(permit).handler(({ permit }) => void seen.push(`two ${permit}`))
  await two({ path: '' })
  await one({ path: '' })
  t.same(seen, ['two me may', 'one me'])
})

t.test('an empty stack hands on what goes in', async (t) => {
  const input = { path: '/' }
  await stack<Raw>().handler((raw) => void t.equal(raw, input))(input)
})
