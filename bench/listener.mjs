/** Gives back what it gets, on loopback. Prints its port. Ends with its stdin. */
import { createServer } from 'node:net'

const server = createServer((socket) => socket.on('error', () => {}).pipe(socket))
server.listen(0, '127.0.0.1', () => process.stdout.write(`${server.address().port}\n`))
process.stdin.resume().on('end', () => process.exit(0))
