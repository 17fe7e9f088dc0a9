import { WaybillError } from '../../shared/domain/errors.ts'
import type { Rse } from './directory.ts'

/** What is to be free can be told only where it is known how much there is. Throws 400 MIN_FREE_IMPOSSIBLE. */
export function checkSpace({ capacityBytes, minFreeBytes }: Pick<Rse, 'capacityBytes' | 'minFreeBytes'>): void {
  const refuse = (why: string): never => {
    const message = `${minFreeBytes} bytes cannot be kept free: ${why}`
    throw new WaybillError('MIN_FREE_IMPOSSIBLE', message, { status: 400, field: 'minFreeBytes' })
  }
  if (minFreeBytes === null) return
  if (capacityBytes === null) refuse('nobody knows the capacity of this storage; give capacityBytes too')
  else if (minFreeBytes > capacityBytes) refuse(`the capacity is ${capacityBytes}`)
}
