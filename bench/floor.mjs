/**
 * The least a relay must do: `node floor.mjs PORT COMMAND [ARG...]`. No authentication, no sessions, no limits, no log.
 */
import { spawn } from 'node:child_process'
import { createServer } from 'node:http'

const [port, command, ...args] = process.argv.slice(2)
const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
const waiting = new Map()
let lastId = 0

function answer(line) {
  const message = JSON.parse(line)
  const { id, response } = waiting.get(message.id)
  waiting.delete(message.id)
  message.id = id
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(message))
}

let parts = []
child.stdout.setEncoding('utf8').on('data', (chunk) => {
  const [first, ...lines] = chunk.split('\n')
  parts.push(first)
  for (const line of lines) {
    answer(parts.join(''))
    parts = [line]
  }
})

function relay(message, response) {
  if (message.id === undefined) {
    response.statusCode = 202
    response.end()
  } else {
    waiting.set(++lastId, { id: message.id, response })
    message.id = lastId
  }
  child.stdin.write(`${JSON.stringify(message)}\n`)
}

const server = createServer((request, response) => {
  const chunks = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => relay(JSON.parse(Buffer.concat(chunks).toString()), response))
})
server.listen(Number(port), '127.0.0.1')
