import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { bytesText, type Column, type Output } from './output.ts'

type Preview = Answer<Routes['previewRules']>['items'][number]

const COLUMNS: readonly Column<{ did: string } & Preview['places'][number]>[] = [
  { name: 'did', value: item => item.did },
  { name: 'rse', value: item => item.rse },
  { name: 'would be locked', value: item => bytesText(item.bytes) },
  { name: 'would move', value: item => bytesText(item.bytesToMove) },
]

/** Where rules would keep what, and how much would move. Throws where one would have too few copies, as it would be STUCK for it. */
export async function showPreview(output: Output, items: readonly Preview[]): Promise<void> {
  if (output.json) {
    for (const item of items) output.one(item)
  } else {
    const places = items.flatMap(({ did, places }) => places.map(place => ({ did, ...place })))
    if (places.length > 0) await output.list([places], COLUMNS)
    for (const item of items) output.done(`${item.did}: ${summary(item)}`, item)
  }
  const short = items.find(({ error }) => error !== undefined)
  if (short?.error === undefined) return
  const [code = '', ...words] = short.error.split(': ')
  throw new WaybillError(code, `${short.did}: ${words.join(': ')}`, { status: 409 })
}

function summary({ files, bytes, exact, places, error }: Preview): string {
  const moved = places.reduce((sum, place) => sum + place.bytesToMove, 0)
  const reckoned = exact ? '' : ', reckoned up from its first datasets or files'
  return [`${files} files, ${bytesText(bytes)}; ${bytesText(moved)} would move${reckoned}`, error ?? []]
    .flat()
    .join('; ')
}
