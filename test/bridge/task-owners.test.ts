import t from 'tap'
import { TaskOwners } from '../../src/bridge/task-owners.ts'

t.test('a task is known to who started it', async (t) => {
  const tasks = new TaskOwners()
  tasks.add('1', 'alice')
  tasks.add('2', 'bob')
  t.ok(tasks.owns('1', 'alice'))
  t.notOk(tasks.owns('1', 'bob'))
  t.notOk(tasks.owns('2', 'alice'))
  t.notOk(tasks.owns('3', 'alice'))
  for (const name of ['__proto__', 'constructor', '']) {
    t.notOk(tasks.owns(name, 'alice'))
    t.notOk(tasks.owns('1', name))
  }
})

t.test('an id that two get is that of the last', async (t) => {
  const tasks = new TaskOwners()
  tasks.add('1', 'alice')
  tasks.add('1', 'bob')
  t.notOk(tasks.owns('1', 'alice'))
  t.ok(tasks.owns('1', 'bob'))
})

t.test('the oldest make way, each principal’s their own', async (t) => {
  const tasks = new TaskOwners()
  tasks.add('bobs', 'bob')
  for (let i = 0; i < 1000; i++) tasks.add(String(i), 'alice')
  t.ok(tasks.owns('0', 'alice'))
  tasks.add('one more', 'alice')
  t.notOk(tasks.owns('0', 'alice'))
  t.ok(tasks.owns('1', 'alice'))
  t.ok(tasks.owns('one more', 'alice'))
  t.ok(tasks.owns('bobs', 'bob'))
})
