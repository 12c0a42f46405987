import { SidecarError } from '../core/errors.ts'
import type { Layer } from '../core/pipeline.ts'
import type { HttpTrusted } from './http.ts'

/** Documents that everybody may read, by path. */
export type PublicDocuments = (path: string) => object | undefined

const prefix = '/.well-known/'
const maxAgeSeconds = 300

/**
 * Answers what lies under `/.well-known/` (RFC 8615) before anybody is asked for a credential: clients look there to
 * learn how to get one (RFC 9728 section 3). What is not there is 404, never 401: clients take that as the answer
 * that there is nothing.
 */
export function wellKnown(documents: PublicDocuments): Layer<HttpTrusted, HttpTrusted> {
  return (trusted, next) => {
    const { path, httpMethod, response, requestId } = trusted
    if (!path.startsWith(prefix)) return next(trusted)
    const document = documents(path)
    if (document === undefined) throw new SidecarError('ERR_NOT_FOUND', { detail: `${httpMethod} ${path}` })
    if (httpMethod !== 'GET' && httpMethod !== 'HEAD') {
      throw new SidecarError('ERR_METHOD', { headers: { Allow: 'GET, HEAD' } })
    }
    const body = JSON.stringify(document)
    response.writeHead(200, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(body),
      'Cache-Control': `max-age=${maxAgeSeconds}`,
      'X-Request-Id': requestId,
    })
    response.end(httpMethod === 'HEAD' ? undefined : body)
  }
}
