import type { Activity } from './types.ts'

/**
 * The packets of a macaroon as XRootD and dCache serialise it (libmacaroons version 1): base64url of `LLLLkey value\n`, LLLL
 * being the packet's length in hex, the caveats under `cid`. undefined: it is something else (StoRM's are JWTs).
 */
export function macaroonPackets(macaroon: string): readonly (readonly [key: string, value: string])[] | undefined {
  const bytes = Buffer.from(macaroon, 'base64url').toString('latin1')
  const packets: [string, string][] = []
  for (let at = 0; at < bytes.length; ) {
    const digits = bytes.slice(at, at + 4)
    const length = /^[0-9a-f]{4}$/i.test(digits) ? Number.parseInt(digits, 16) : 0
    const packet = /^([a-z]+) (.*)\n$/s.exec(bytes.slice(at + 4, at + length))
    if (packet === null || at + length > bytes.length) return undefined
    packets.push([packet[1] ?? '', packet[2] ?? ''])
    at += length
  }
  return packets[0]?.[0] === 'location' ? packets : undefined
}

/**
 * Whether a macaroon is for what was asked for, as far as it can be read: several `activity` caveats allow what all of them
 * allow, none allows everything, and looking (READ_METADATA) is part of every other.
 */
export function activityFault(macaroon: string, asked: Activity): 'narrower' | 'wider' | undefined {
  const packets = macaroonPackets(macaroon)
  if (packets === undefined) return undefined
  const lists = packets
    .filter(([key, value]) => key === 'cid' && value.startsWith('activity:'))
    .map(([, value]) =>
      value
        .slice('activity:'.length)
        .split(',')
        .map(activity => activity.trim()),
    )
  const [first, ...others] = lists
  if (first === undefined) return 'wider'
  const allowed = first.filter(activity => others.every(list => list.includes(activity)))
  if (!allowed.includes(asked)) return 'narrower'
  return allowed.some(activity => activity !== asked && activity !== 'READ_METADATA') ? 'wider' : undefined
}
