/** Messages of the sidecar's own making. */
import { type ErrorCode, SidecarError } from './errors.ts'
import { Message, readMessages } from './jsonrpc.ts'

export function messageOf(text: string): Message {
  return readMessages(Buffer.from(text)).messages[0] as Message
}

/** The id is a place holder: whoever sends it puts its own in. */
export function localRequest(method: string, params: object): Message {
  return messageOf(JSON.stringify({ jsonrpc: '2.0', id: 0, method, params }))
}

export function localNotification(method: string, params?: object): Message {
  return messageOf(JSON.stringify({ jsonrpc: '2.0', method, ...(params === undefined ? {} : { params }) }))
}

/** @param idText the id of the request as JSON text */
export function localCancellation(idText: string, reason: string): Message {
  const params = `{"requestId":${idText},"reason":${JSON.stringify(reason)}}`
  return messageOf(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":${params}}`)
}

/** @param idText the id as JSON text */
export function localResult(idText: string, result: object): Message {
  return messageOf(`{"jsonrpc":"2.0","id":${idText},"result":${JSON.stringify(result)}}`)
}

/**
 * A result whose text was checked when it arrived, as part of some other message. It is not read again: around it are
 * more levels, and members that may stand twice where they came from.
 *
 * @param idText the id as JSON text
 */
export function trustedResult(idText: string, resultText: string): Message {
  const head = `{"jsonrpc":"2.0","id":`
  const middle = ',"result":'
  const id = Buffer.from(idText)
  const bytes = Buffer.concat([
    Buffer.from(head),
    id,
    Buffer.from(middle),
    Buffer.from(resultText),
    Buffer.from('}'),
  ])
  const message = new Message(bytes)
  message.kind = 'response'
  message.id = { start: head.length, end: head.length + id.length }
  message.result = { start: message.id.end + middle.length, end: bytes.length - 1 }
  return message
}

/** A refusal of a server's request; `rpc` is the JSON-RPC code, which may differ from the table's for clients. */
export function localRefusal(idText: string, rpc: number, reason: ErrorCode): Message {
  const data = { source: 'mcp-sidecar', reason }
  const error = { code: rpc, message: new SidecarError(reason).message, data }
  return messageOf(`{"jsonrpc":"2.0","id":${idText},"error":${JSON.stringify(error)}}`)
}
