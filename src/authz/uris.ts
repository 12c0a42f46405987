/**
 * What rules about resources rest on: that a URI means to the server what it says. One that climbs out of where it
 * begins does not: `file:///public/../secret` begins with `file:///public/`.
 */

const climbing =
  /(?:^|[/\\:]|%(?:25)*2f|%(?:25)*5c)(?:\.|%(?:25)*2e){2}(?: |%(?:25)*20)*(?:$|[/\\?#;]|%(?:25)*(?:2f|5c|3b|3f|23))/i

/** What stands for a control character once it is decoded. */
const control = /%(?:25)*(?:[01][\da-f]|7f)/i

/**
 * True for a URI in which a segment is `..`, in any spelling (`%2e%2e`, `..%2f`, `\..\`, `%252e`; with blanks behind it, which
 * Windows and parsers trim, or a `;`, which begins a parameter in Java), or that has control characters, decoded or not,
 * which some parsers leave out (WHATWG URL) and so find a `..` that was not there.
 */
export function isTreacherous(uri: string): boolean {
  for (let i = 0; i < uri.length; i++) {
    const c = uri.charCodeAt(i)
    if (c < 0x20 || c === 0x7f) return true
  }
  if (uri.includes('%') && control.test(uri)) return true
  return (uri.includes('.') || uri.includes('%')) && climbing.test(uri)
}

/**
 * A URI as servers may read it: as it stands, and without percent-encoding (also of a second layer), as the WHATWG URL
 * parser has it, with its host in lower case, without fragment, empty query, `/./` and runs of `/`, and with several of
 * these at once. Of one that is in its normal form there is nothing but itself.
 */
export function spellings(uri: string): readonly string[] {
  const found = new Set([uri])
  // Each step works on what those before it have found: a server may do one, or several.
  for (const step of steps) for (const each of [...found]) found.add(step(each))
  return [...found]
}

const steps: readonly ((uri: string) => string)[] = [
  decoded,
  (uri) => (URL.canParse(uri) ? new URL(uri).href : uri),
  decoded,
  lowerHost,
  (uri) => cutAt(uri, uri.indexOf('#')),
  (uri) => (uri.endsWith('?') ? uri.slice(0, -1) : uri),
  plainPath,
]

// Each run by itself: one that is no UTF-8, perhaps in a fragment, must not keep the others from being read.
function decoded(uri: string): string {
  if (!uri.includes('%')) return uri
  return uri.replace(/(?:%[0-9a-f]{2})+/gi, (run) => {
    try {
      return decodeURIComponent(run)
    } catch {
      return run
    }
  })
}

/** What the WHATWG URL parser does to the schemes that it knows, and other parsers to any. */
function lowerHost(uri: string): string {
  return uri.replace(
    /^([a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?)([^/?#]*)/i,
    (_, head: string, host: string) => head + host.toLowerCase(),
  )
}

function plainPath(uri: string): string {
  const head = /^(?:[a-z][a-z0-9+.-]*:)?(?:\/\/[^/?#]*)?/i.exec(uri)?.[0] ?? ''
  const end = uri.slice(head.length).search(/[?#]/)
  const path = end < 0 ? uri.slice(head.length) : uri.slice(head.length, head.length + end)
  return head + path.replace(/\/(?:\.?\/)+/g, '/') + uri.slice(head.length + path.length)
}

function cutAt(uri: string, index: number): string {
  return index < 0 ? uri : uri.slice(0, index)
}
