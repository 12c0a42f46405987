/**
 * For each line `N`: connects N times to the port in its argument, each time sending a byte and waiting for it to come back,
 * and says how long a connect took, and how long until the byte was back: `CONNECT ANSWER`. Medians, in microseconds.
 */
import { connect } from 'node:net'
import { createInterface } from 'node:readline'

const port = Number(process.argv[2])

function once(times) {
  return new Promise((resolve, reject) => {
    const from = performance.now()
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    socket.on('error', reject)
    socket.once('connect', () => {
      times[0].push(performance.now() - from)
      socket.write('x')
    })
    socket.once('data', () => {
      times[1].push(performance.now() - from)
      socket.destroy()
    })
    socket.once('close', resolve)
  })
}

const median = (times) => (times.sort((a, b) => a - b)[times.length >> 1] * 1000).toFixed(1)

for await (const line of createInterface({ input: process.stdin })) {
  const times = [[], []]
  for (let i = 0; i < Number(line); i++) await once(times)
  process.stdout.write(`${times.map(median).join(' ')}\n`)
}
