import type { Exchange, Storage } from './exchange.ts'
import { Refusal } from './refusal.ts'

/**
 * Before a file is opened: what a storage does when it is on tape only. dCache recalls it by itself for who may stage, keeps the
 * client waiting and gives up after `openSeconds`; who may not is refused at once, by 403 (RequestContainerV5.java,
 * Transfer.java). EOS refuses by 500 (ENODEV).
 */
export async function demandOnDisk({ tape }: Storage, exchange: Exchange): Promise<void> {
  if (tape === undefined || (await tape.copies.isOnDisk(exchange.path))) return
  if (tape.settings.dialect === 'eos') throw new Refusal(500, 'open - no disk replica exists')
  if (!exchange.permits('stage')) throw new Refusal(403, 'the file is on tape, and the token does not grant stage')
  if (!(await tape.recalls.fetch(exchange.path))) throw new Refusal(500, 'Server is busy (internal timeout)')
}
