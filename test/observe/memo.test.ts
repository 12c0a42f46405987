import t from 'tap'
import { Memo } from '../../src/observe/memo.ts'

t.test('a text is made once, unless there were too many or it is too long', async (t) => {
  const made: string[] = []
  const memo = new Memo(2, 3, (text) => {
    made.push(text)
    return text.toUpperCase()
  })
  t.same([memo.of('a'), memo.of('b'), memo.of('a'), memo.of('b')], ['A', 'B', 'A', 'B'])
  t.same(made.splice(0), ['a', 'b'])
  t.same([memo.of('long'), memo.of('long')], ['LONG', 'LONG'])
  t.same(made.splice(0), ['long', 'long'])
  memo.of('c')
  memo.of('c')
  memo.of('a')
  t.same(made, ['c', 'a'], 'the third text made room for itself')
})
