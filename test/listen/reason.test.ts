import { createServer } from 'node:net'
import t from 'tap'
import { listenReason } from '../../src/listen/reason.ts'

const failure = (host: string): Promise<unknown> =>
  new Promise((resolve) => createServer().once('error', resolve).listen(0, host))

t.test('what the system says of an address is told as something to do', async (t) => {
  const told = (code: string): string => listenReason(Object.assign(new Error('raw'), { code }), '--port')
  t.equal(told('EADDRINUSE'), 'it is in use; choose another with --port')
  t.match(told('EACCES'), /may not use the port; choose one of 1024 or more with --port/)
  t.equal(told('EMFILE'), 'raw')
  t.match(listenReason(await failure('192.0.2.1'), '--port'), /no address of this machine/)
  t.match(listenReason(await failure('nowhere.invalid'), '--port'), /the name leads to no address/)
})
