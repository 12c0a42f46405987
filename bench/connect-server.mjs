/** For each line `N`: connects N times, one after the other, to the port in its argument, and says how long one took. Microseconds. */
import { connect } from 'node:net'
import { createInterface } from 'node:readline'

const port = Number(process.argv[2])

function once() {
  return new Promise((resolve, reject) => {
    const from = performance.now()
    const socket = connect(port, '127.0.0.1')
    socket.once('error', reject)
    socket.once('connect', () => {
      const took = performance.now() - from
      socket.once('close', () => resolve(took))
      socket.destroy()
    })
  })
}

for await (const line of createInterface({ input: process.stdin })) {
  const times = []
  for (let i = 0; i < Number(line); i++) times.push(await once())
  times.sort((a, b) => a - b)
  process.stdout.write(`${(times[times.length >> 1] * 1000).toFixed(1)}\n`)
}
