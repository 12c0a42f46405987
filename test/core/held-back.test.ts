import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
import { HeldBack } from '../../src/core/held-back.ts'

function pending() {
  let resolve = (): void => {}
  let reject = (_error: Error): void => {}
  const promise = new Promise<void>((...ends) => {
    ;[resolve, reject] = ends
  })
  return { promise, resolve: () => resolve(), reject: (error: Error) => reject(error) }
}

t.test('what comes later in a session waits until all that waits has gone on, or failed', async (t) => {
  const held = new HeldBack()
  t.equal(held.earlier('s'), undefined)
  const [one, two] = [pending(), pending()]
  t.equal(held.hold('s', one.promise), one.promise)
  const failing = held.hold('s', two.promise)
  t.equal(held.earlier('other'), undefined)
  let gone = false
  void held.earlier('s')?.then(() => {
    gone = true
  })
  one.resolve()
  await turn()
  t.notOk(gone)
  two.reject(new Error('refused'))
  await t.rejects(failing)
  await turn()
  t.ok(gone, 'a failure is told to who waits for the request alone')
  t.equal(held.earlier('s'), undefined, 'nothing is left of it')
})

t.test('nothing waits for a request without a session', async (t) => {
  const held = new HeldBack()
  const { promise } = pending()
  t.equal(held.hold(undefined, promise), promise)
  t.equal(held.earlier(undefined), undefined)
})
