/** The upper bound: `node echo.mjs PORT` reads each request and sends one fixed answer, with no server process behind it. */
import { createServer } from 'node:http'
import { FIXED_ANSWER } from './client.mjs'

const answer = JSON.stringify(FIXED_ANSWER)
const server = createServer((request, response) => {
  request.resume()
  request.on('end', () => {
    response.setHeader('content-type', 'application/json')
    response.end(answer)
  })
})
server.listen(Number(process.argv[2]), '127.0.0.1')
