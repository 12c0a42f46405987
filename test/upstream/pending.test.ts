import fc from 'fast-check'
import t from 'tap'
import type { UpstreamCall } from '../../src/core/types.ts'
import { type PendingCall, PendingTable } from '../../src/upstream/pending.ts'
import { holds } from '../support/property.ts'

const callOf = (id: number): PendingCall => ({ id, call: {} as UpstreamCall, owner: undefined })

t.test('it holds what a map would hold, in the order of the ids', async (t) => {
  const step = fc.record({ add: fc.boolean(), which: fc.nat() })
  holds(
    t,
    fc.property(fc.array(step, { maxLength: 400 }), fc.constantFrom(1, 2, 8), (steps, keep) => {
      const table = new PendingTable<PendingCall>()
      const model = new Map<number, PendingCall>()
      let last = 0
      for (const { add, which } of steps) {
        // Some runs fill up, others stay nearly empty.
        if (add || which % keep !== 0) {
          const id = table.nextId()
          if (id <= last) return false
          last = id
          const call = callOf(id)
          table.add(call)
          model.set(id, call)
        } else {
          const ids = [...model.keys()]
          const id = ids[which % Math.max(1, ids.length)] ?? 1
          if (table.delete(id) !== model.delete(id) || table.delete(id)) return false
        }
        if (table.size !== model.size) return false
      }
      return (
        [...model].every(([id, call]) => table.get(id) === call) &&
        fc.stringify(table.all()) === fc.stringify([...model.values()])
      )
    }),
    300,
  )
})

t.test('an id that was never given, or is no id at all, finds nothing', async (t) => {
  const table = new PendingTable<PendingCall>()
  for (let i = 0; i < 100; i++) table.add(callOf(table.nextId()))
  for (const id of [0, -1, 101, 1.5, 2 ** 32 + 1, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.equal(table.get(id), undefined, String(id))
    t.notOk(table.delete(id), String(id))
  }
  t.equal(table.size, 100)
})

t.test(
  'a call that stays is passed around, and the table does not grow with those that come and go',
  async (t) => {
    const table = new PendingTable<PendingCall>()
    const stays = callOf(table.nextId())
    table.add(stays)
    let last = stays.id
    for (let i = 0; i < 10_000; i++) {
      const id = table.nextId()
      if (id <= last) t.fail(`${id} after ${last}`)
      last = id
      table.add(callOf(id))
      table.delete(id)
    }
    t.equal(table.get(stays.id), stays)
    t.same(table.all(), [stays])
    t.ok(last < 10_400, 'few ids were passed over')
  },
)
