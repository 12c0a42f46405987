/** Preloaded into a contestant that has no option for its address, so that the benchmark listens on loopback only. */
import { Server } from 'node:net'

const listen = Server.prototype.listen
Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, { port, host: '127.0.0.1' }, ...rest)
}
