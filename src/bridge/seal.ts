import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import { SidecarError } from '../core/errors.ts'
import type { Seal } from '../core/types.ts'

const header = Buffer.from('{"alg":"dir","enc":"A256GCM"}').toString('base64url')
/** Of what is sealed, as JSON text. Clients carry it about in every retry. */
const maxBytes = 1024 * 1024

/**
 * Handles as JWE compact serializations (RFC 7516 section 7.1) with direct encryption and A256GCM: a client can
 * neither read nor change them. With the same key, replicas can open each other's.
 *
 * @param key any secret of at least 32 bytes; without it one is made up, which lasts as long as this process
 */
export function createSeal(key: Buffer = randomBytes(32)): Seal {
  const secret = createHash('sha256').update('mcp-sidecar request state\0').update(key).digest()
  return {
    seal(state) {
      const plain = Buffer.from(JSON.stringify(state))
      if (plain.length > maxBytes) {
        throw new SidecarError('ERR_UPSTREAM_MESSAGE', { detail: `a requestState of ${plain.length} bytes` })
      }
      const iv = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', secret, iv)
      cipher.setAAD(Buffer.from(header))
      const text = Buffer.concat([cipher.update(plain), cipher.final()])
      const parts = [iv, text, cipher.getAuthTag()].map((part) => part.toString('base64url'))
      return `${header}..${parts.join('.')}`
    },
    open(text) {
      const parts = text.length > 2 * maxBytes ? [] : text.split('.')
      if (parts.length !== 5 || parts[0] !== header || parts[1] !== '') return undefined
      const [iv, body, tag] = parts.slice(2).map((part) => Buffer.from(part, 'base64url')) as [
        Buffer,
        Buffer,
        Buffer,
      ]
      // One handle has one spelling: what is looked up as used must not come back in another.
      if ([iv, body, tag].some((part, i) => part.toString('base64url') !== parts[i + 2])) return undefined
      if (iv.length !== 12 || tag.length !== 16) return undefined
      try {
        const decipher = createDecipheriv('aes-256-gcm', secret, iv)
        decipher.setAAD(Buffer.from(header))
        decipher.setAuthTag(tag)
        return JSON.parse(Buffer.concat([decipher.update(body), decipher.final()]).toString('utf8'))
      } catch {
        return undefined
      }
    },
  }
}
