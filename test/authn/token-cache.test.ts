import t from 'tap'
import { TokenCache, type Verified } from '../../src/authn/token-cache.ts'
import { anonymous } from '../../src/core/types.ts'
import { ManualClock } from '../support/modern-calls.ts'

const entry = (until: number, keys?: object, size = 1): Verified => ({
  identity: anonymous,
  until,
  keys,
  size,
})

t.test('a token is remembered until it ends, to the millisecond', async (t) => {
  const clock = new ManualClock()
  const cache = new TokenCache(clock)
  cache.put('k', entry(clock.epoch() + 1000))
  clock.pass(999)
  t.equal(cache.get('k', undefined), anonymous)
  clock.pass(1)
  t.equal(cache.get('k', undefined), undefined)
  t.equal(cache.size, 0, 'and then forgotten')
})

t.test('a token is forgotten when the keys are others than those it was verified with', async (t) => {
  const clock = new ManualClock()
  const cache = new TokenCache(clock)
  const [old, fresh] = [{}, {}]
  cache.put('k', entry(clock.epoch() + 1000, old))
  t.equal(cache.get('k', old), anonymous)
  t.equal(cache.get('k', fresh), undefined)
  t.equal(cache.get('k', old), undefined)
  cache.put('k', entry(clock.epoch() + 1000, old))
  t.equal(cache.get('k', undefined), undefined, 'nor when there are none any more')
})

t.test('its size is bounded, in tokens and in what they keep', async (t) => {
  const clock = new ManualClock()
  const cache = new TokenCache(clock)
  for (let i = 0; i < 20_000; i++) cache.put(`k${i}`, entry(clock.epoch() + 1000))
  t.equal(cache.size, 10_000)
  t.equal(cache.get('k19999', undefined), anonymous)
  t.equal(cache.get('k0', undefined), undefined)
  const large = new TokenCache(clock)
  for (let i = 0; i < 5000; i++) large.put(`k${i}`, entry(clock.epoch() + 1000, undefined, 8192 * 2))
  t.equal(large.size, 2048)
})

t.test('what is under way is shared; its failure is not kept', async (t) => {
  const clock = new ManualClock()
  const cache = new TokenCache(clock)
  let runs = 0
  const fails = async (): Promise<Verified> => {
    runs++
    await Promise.resolve()
    throw new Error('no')
  }
  const results = await Promise.allSettled([cache.once('k', fails), cache.once('k', fails)])
  t.same(
    results.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  t.equal(runs, 1)
  const works = async (): Promise<Verified> => {
    runs++
    return entry(clock.epoch() + 1000)
  }
  t.equal(await cache.once('k', works), anonymous)
  t.equal(cache.get('k', undefined), anonymous)
  t.equal(runs, 2)
})

t.test('tokens are kept as hashes', async (t) => {
  t.match(TokenCache.key('token'), /^[A-Za-z0-9+/]{43}=$/)
  t.not(TokenCache.key('token'), TokenCache.key('token2'))
})
