import { sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { decodeCursor, pageOf } from '../database/cursor.ts'
import { type ListedGrant, listGrants } from './read-store.ts'

export function tokenHandlers({ db, storages }: Context): Pick<Handlers, 'listGrants'> {
  return {
    async listGrants({ query: { rse, cursor, limit }, caller }) {
      const sight = sightOf(caller)
      const names = new Map((await storages.all()).map(known => [known.id, known.name]))
      const rseId = rse === undefined ? undefined : (await storages.byName(sight, rse)).id
      const rows = await listGrants(db.read, sight, rseId, decodeCursor(cursor), limit + 1)
      return pageOf(
        rows,
        limit,
        row => row.id,
        row => viewGrant(row, names),
      )
    },
  }
}

/** What may be known of a grant: never its tokens, only what they are recognised by. */
function viewGrant(row: ListedGrant, names: ReadonlyMap<number, string>) {
  return {
    id: row.id,
    issuer: row.issuer,
    rse: names.get(row.rse_id) ?? '',
    audience: row.audience,
    purpose: row.purpose,
    scopes: row.scopes.split(' '),
    state: row.state,
    generation: row.generation,
    minted: row.mints,
    exchanged: row.exchanges,
    refreshed: row.refreshes,
    ...(row.expires_at === 0 ? {} : { expiresAt: row.expires_at }),
    ...(row.jti === null ? {} : { jti: row.jti }),
    ...(row.sha256 === null ? {} : { sha256: row.sha256 }),
    ...(row.error === null ? {} : { error: row.error }),
  }
}
