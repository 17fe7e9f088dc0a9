import { WaybillError } from '../../shared/domain/errors.ts'
import { once } from '../accounts/idempotency.ts'
import { type Sight, sightOf } from '../accounts/sight.ts'
import type { Vos } from '../accounts/vos.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { repairAt } from '../rules/step-store.ts'
import { type DecisionRow, decisionsOf } from '../transfers/decision-store.ts'
import { failingLinks } from '../transfers/health-store.ts'
import { checkAudience } from './audience.ts'
import type { Rse } from './directory.ts'
import { resolveExpression } from './expression.ts'
import { failingAt, viewFailing } from './failing.ts'
import { demandOwnPlace } from './overlap.ts'
import { removeRse } from './removal.ts'
import { checkSpace } from './space.ts'
import {
  closeLink,
  deleteAttribute,
  deleteProtocol,
  insertRse,
  type Link,
  limitOf,
  listLinks,
  putAttribute,
  putLink,
  putProtocol,
  updateRse,
} from './store.ts'

type StorageHandlers = Pick<
  Handlers,
  | 'addRse'
  | 'listRses'
  | 'getRse'
  | 'updateRse'
  | 'removeRse'
  | 'setAttribute'
  | 'removeAttribute'
  | 'addProtocol'
  | 'removeProtocol'
  | 'setDistance'
  | 'removeDistance'
  | 'listDistances'
  | 'listDecisions'
>

export function storageHandlers(context: Context, vos: Vos): StorageHandlers {
  const { db, storages, clock, wake } = context

  /** As they are now, of every VO. */
  async function everyRse(): Promise<readonly Rse[]> {
    storages.forget()
    return storages.all()
  }

  /** Runs a change, and answers the storage as it is then. */
  async function changed(sight: Sight, name: string, change: (rse: Rse) => Promise<void>) {
    await change(await storages.byName(sight, name))
    storages.forget()
    return view(await storages.byName(sight, name))
  }

  return {
    async addRse(request) {
      const { body } = request
      const vo = vos.named(body.vo)
      const urls = body.protocols.map(protocol => protocol.url)
      const audience = body.audience ?? urls[0] ?? ''
      checkAudience(audience, urls)
      checkSpace(body)
      if (body.basePath !== '/' && !`${body.prefix}/`.startsWith(`${body.basePath}/`)) {
        const message = `the prefix ${body.prefix} is not below the base path ${body.basePath}: no scope could name it`
        throw new WaybillError('PREFIX_OUTSIDE_BASE', message, { status: 400, field: 'prefix' })
      }
      await once(context, 'addRse', request, async (executor, now) => {
        const all = await everyRse()
        demandOwnPlace(body, all)
        demandNoAttribute(body.name, all)
        demandNoNames(Object.keys(body.attributes), all)
        const id = await insertRse(executor, { ...body, voId: vo.id, audience, now })
        if (id === undefined) {
          throw new WaybillError('RSE_EXISTS', `there is a storage ${body.name} already`, {
            status: 409,
            field: 'name',
          })
        }
        for (const [key, value] of Object.entries(body.attributes)) await putAttribute(executor, id, key, value)
        for (const protocol of body.protocols) await putProtocol(executor, id, protocol)
        return {}
      })
      storages.forget()
      return view(await storages.byName(sightOf(request.caller), body.name))
    },
    async listRses({ query: { expression }, caller }) {
      const rses = await storages.seenBy(sightOf(caller))
      const names = expression === undefined ? undefined : new Set(resolveExpression(expression, [...rses]))
      const named = rses.filter(rse => names?.has(rse.name) ?? true)
      const failing = await failingAt(db.read, sightOf(caller))
      return { items: named.map(rse => ({ ...view(rse), ...failing(rse.id) })) }
    },
    async getRse({ params, caller }) {
      const sight = sightOf(caller)
      const rse = await storages.byName(sight, params.rse)
      return { ...view(rse), ...(await failingAt(db.read, sight))(rse.id) }
    },
    async updateRse({ params, body, caller }) {
      const answer = await changed(sightOf(caller), params.rse, rse =>
        db.write(async executor => {
          await updateRse(executor, rse.id, body)
          if (body.availabilityWrite) await repairAt(executor, rse.id, clock.now())
        }),
      )
      if (body.availabilityWrite) wake.notify('repairs')
      return answer
    },
    async removeRse({ params, caller }) {
      const rse = await storages.byName(sightOf(caller), params.rse)
      const ofVo = await storages.ofVo(rse.voId)
      await db.write(executor => removeRse(executor, rse, ofVo))
      storages.forget()
      return {}
    },
    async setAttribute({ params, body, caller }) {
      return changed(sightOf(caller), params.rse, async rse => {
        demandNoNames(
          [params.key],
          (await everyRse()).filter(({ id }) => id !== rse.id),
        )
        await db.write(executor => putAttribute(executor, rse.id, params.key, body.value))
      })
    },
    async removeAttribute({ params, caller }) {
      return changed(sightOf(caller), params.rse, rse =>
        db.write(executor => deleteAttribute(executor, rse.id, params.key)),
      )
    },
    async addProtocol({ params, body, caller }) {
      return changed(sightOf(caller), params.rse, async rse => {
        checkAudience(rse.audience, [body.url], 'url')
        demandOwnPlace({ ...rse, protocols: [body] }, await everyRse())
        await db.write(executor => putProtocol(executor, rse.id, body))
      })
    },
    async removeProtocol({ params, query: { url }, caller }) {
      return changed(sightOf(caller), params.rse, async rse => {
        if (await db.write(executor => deleteProtocol(executor, rse.id, url))) return
        throw rse.protocols.some(protocol => protocol.url === url) ? lastProtocol(rse, url) : unknownProtocol(rse, url)
      })
    },
    async setDistance({ params, body, caller }) {
      const sight = sightOf(caller)
      const source = await storages.byName(sight, params.source, 'source')
      const destination = await storages.byName(sight, params.destination, 'destination')
      if (source.id === destination.id) {
        throw new WaybillError('LINK_TO_ITSELF', 'a link goes from one storage to another', {
          status: 400,
          field: 'destination',
        })
      }
      const link = await db.write(executor =>
        putLink(executor, { sourceId: source.id, destinationId: destination.id, ...body }),
      )
      return { ...params, ...viewLink(link) }
    },
    async removeDistance({ params, caller }) {
      const sight = sightOf(caller)
      const source = await storages.byName(sight, params.source, 'source')
      const destination = await storages.byName(sight, params.destination, 'destination')
      if (!(await db.write(executor => closeLink(executor, source.id, destination.id)))) {
        throw new WaybillError('LINK_UNKNOWN', `there is no link from ${source.name} to ${destination.name}`, {
          status: 404,
        })
      }
      return {}
    },
    async listDecisions({ params, query: { limit }, caller }) {
      const sight = sightOf(caller)
      const source = await storages.byName(sight, params.source, 'source')
      const destination = await storages.byName(sight, params.destination, 'destination')
      const rows = await decisionsOf(db.read, { sourceId: source.id, destinationId: destination.id }, limit)
      return { source: source.name, destination: destination.name, items: rows.map(viewDecision) }
    },
    async listDistances({ caller }) {
      const names = new Map((await storages.seenBy(sightOf(caller))).map(rse => [rse.id, rse.name]))
      const failing = new Map((await failingLinks(db.read)).map(row => [row.link_id, row]))
      const links = await listLinks(db.read)
      return {
        items: links.flatMap(link => {
          const source = names.get(link.source_rse_id)
          const destination = names.get(link.destination_rse_id)
          if (source === undefined || destination === undefined) return []
          const own = viewLink(link)
          const fails = failing.get(link.id)
          return [{ source, destination, ...own, ...(fails && { failing: viewFailing(fails) }) }]
        }),
      }
    },
  }
}

function view({ id: _id, voId: _voId, ...rse }: Rse) {
  return {
    ...rse,
    attributes: { ...rse.attributes },
    protocols: rse.protocols.map(protocol => ({ ...protocol, redirectHosts: [...protocol.redirectHosts] })),
  }
}

/** One word in an expression means one thing. Throws 409 NAME_TAKEN for attributes that are called like a storage. */
function demandNoNames(keys: readonly string[], rses: readonly Rse[]): void {
  const named = rses.find(({ name }) => keys.includes(name))
  if (named === undefined) return
  const message = `${named.name} is a storage: an attribute of that name would have expressions mean both`
  throw new WaybillError('NAME_TAKEN', message, { status: 409, field: 'key' })
}

/** Likewise for a storage that is called like an attribute. */
function demandNoAttribute(name: string, rses: readonly Rse[]): void {
  const having = rses.find(({ attributes }) => Object.hasOwn(attributes, name))
  if (having === undefined) return
  const message = `${having.name} has an attribute ${name}: a storage of that name would have expressions mean both`
  throw new WaybillError('NAME_TAKEN', message, { status: 409, field: 'name' })
}

function lastProtocol({ name }: Rse, url: string): WaybillError {
  const advice = 'add another one first, or remove the storage'
  return new WaybillError('PROTOCOL_LAST', `${url} is the only way to reach ${name}: ${advice}`, { status: 409 })
}

function unknownProtocol({ name, protocols }: Rse, url: string): WaybillError {
  const known = protocols.map(protocol => protocol.url).join(', ')
  const message = `${name} has no protocol ${url}; it has ${known}`
  return new WaybillError('PROTOCOL_UNKNOWN', message, { status: 404, field: 'url' })
}

function viewLink(link: Link) {
  const { distance, max_active: maxActive, optimize } = link
  return { distance, maxActive, optimize: Boolean(optimize), limit: limitOf(link) }
}

function viewDecision({ at, subject, before, after, code, sentence, figures }: DecisionRow) {
  const parsed = JSON.parse(figures) as Record<string, unknown>
  return { at, subject, from: JSON.parse(before), to: JSON.parse(after), code, sentence, figures: parsed }
}
