/**
 * Scopes in one spelling, so that they can be compared as strings: percent-encoding in capitals, and only where a path needs
 * it (RFC 3986 section 6.2.2). Nothing else is changed; a path with dot segments equals no path that is ever asked for.
 */
export function normaliseScope(scope: string): string {
  return scope.replace(/%[0-9a-f]{2}/gi, encoded => {
    const character = String.fromCharCode(Number.parseInt(encoded.slice(1), 16))
    return /[A-Za-z0-9\-._~]/.test(character) ? character : encoded.toUpperCase()
  })
}

/** True for every capability at storages, also for one without its path, which makes a token invalid. */
export function isStorageScope(scope: string): boolean {
  return scope.startsWith('storage.')
}
