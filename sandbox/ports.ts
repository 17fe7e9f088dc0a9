import { createServer } from 'node:net'
import { WaybillError } from '../shared/domain/errors.ts'
import type { Random } from '../shared/runtime/random.ts'

/** Why nothing can listen on this port of loopback now, as the system's code (`EADDRINUSE`, `EACCES`); `undefined` when it is free. */
export function portTrouble(port: number): Promise<string | undefined> {
  return new Promise(done => {
    const probe = createServer()
    probe.once('error', error => done('code' in error ? String(error.code) : error.message))
    probe.listen(port, '127.0.0.1', () => probe.close(() => done(undefined)))
  })
}

/** Below the ports that Linux gives to outgoing connections, so that none of those takes ours before we listen. */
const FREE_FROM = 20_000
const FREE_TO = 32_000

/** The first of `count` free ports in a row. Throws `SANDBOX_NO_PORTS`. */
export async function freeBase(count: number, random: Random): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const base = FREE_FROM + Math.floor(random.fraction() * (FREE_TO - FREE_FROM))
    const troubles = await Promise.all(portsFrom(base, count).map(portTrouble))
    if (troubles.every(trouble => trouble === undefined)) return base
  }
  throw new WaybillError('SANDBOX_NO_PORTS', `no ${count} free ports in a row from ${FREE_FROM} to ${FREE_TO}`)
}

export function portsFrom(base: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => base + index)
}
