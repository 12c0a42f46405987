/**
 * What rules about resources rest on: that a URI means to the server what it says. One that climbs out of where it
 * begins does not: `file:///public/../secret` begins with `file:///public/`.
 */

const climbing = /(?:^|[/\\:]|%(?:25)*2f|%(?:25)*5c)(?:\.|%(?:25)*2e){2}(?:$|[/\\?#]|%(?:25)*2f|%(?:25)*5c)/i

/**
 * True for a URI in which a segment is `..`, in any spelling (`%2e%2e`, `..%2f`, `\..\`, `%252e`), or that has control
 * characters, which some parsers leave out (WHATWG URL) and so find a `..` that was not there.
 */
export function isTreacherous(uri: string): boolean {
  for (let i = 0; i < uri.length; i++) {
    const c = uri.charCodeAt(i)
    if (c < 0x20 || c === 0x7f) return true
  }
  return (uri.includes('.') || uri.includes('%')) && climbing.test(uri)
}

/** A URI as servers may read it: as it stands, as the WHATWG URL parser has it, and both without percent-encoding. */
export function spellings(uri: string): readonly string[] {
  const found = new Set([uri])
  if (URL.canParse(uri)) found.add(new URL(uri).href)
  for (const each of [...found]) found.add(decoded(each))
  return [...found]
}

function decoded(uri: string): string {
  if (!uri.includes('%')) return uri
  try {
    return decodeURIComponent(uri)
  } catch {
    return uri
  }
}
