/** Apart from other tests of backpressure: on a busy machine it takes as long as they do together. */
import type { IncomingMessage } from 'node:http'
import t from 'tap'
import { startTestSidecar } from '../support/sidecar.ts'
import { openSocket } from '../support/streams.ts'
import { accept, call, open, openSession } from '../support/wire.ts'

const mebibyte = 1024 * 1024
const own = await startTestSidecar(t, { config: { listen: { webSocket: true } } })
const session = await openSession(own.url)

t.test('an answer of 64 MiB passes, on every transport, in little time', async (t) => {
  const bytes = 64 * mebibyte - 200
  const count = async (response: IncomingMessage): Promise<number> => {
    let total = 0
    for await (const part of response) total += (part as Buffer).length
    return total
  }
  // Of the processor: how long others hold it is nothing of ours.
  const before = process.cpuUsage()
  const headers = { 'Content-Type': 'application/json', Accept: accept, ...session }
  const response = await open(own.url, 'POST', headers, JSON.stringify(call('big', 'blob', { bytes })))
  t.equal(response.statusCode, 200)
  t.equal(await count(response), Number(response.headers['content-length']))
  const { user, system } = process.cpuUsage(before)
  t.ok(user + system < 20_000_000, `${user + system} microseconds`)
  const socket = await openSocket(own.base, { version: '2025-06-18' })
  t.equal((await socket.request(call('big', 'blob', { bytes }))).result.content[0].text.length, bytes)
  socket.close()
})
