import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import type { House } from './house.ts'

/** Puts files at a storage as a person does: plan, PUT, confirm. */
export async function uploadFiles(
  house: Pick<House, 'client' | 'http'>,
  rse: string,
  dataset: string,
  files: readonly { did: string; content: Buffer }[],
): Promise<void> {
  const recipient = await newRecipient()
  const plan = await house.client.planUpload({
    body: {
      rse,
      dataset,
      key: recipient.publicJwk,
      files: files.map(({ did, content }) => ({
        did,
        bytes: content.length,
        adler32: adler32Hex(adler32(content)),
        md5: createHash('md5').update(content).digest('hex'),
      })),
    },
  })
  const { token: sealed, context } = plan
  const token = sealed === undefined || context === undefined ? undefined : await recipient.open(sealed, context)
  for (const [i, file] of plan.files.entries()) {
    if (file.done || token === undefined) continue
    const content = files[i]?.content ?? Buffer.alloc(0)
    const response = await house.http.request({
      method: 'PUT',
      url: file.url,
      headers: { Authorization: `Bearer ${token.reveal()}`, 'Content-Length': String(content.length) },
      body: Readable.from([content]),
    })
    const text = await response.text(1000)
    if (response.status >= 300) throw new Error(`PUT ${file.url}: ${response.status} ${text}`)
  }
  const { refused } = await house.client.confirmUpload({ body: { rse, files: files.map(({ did }) => did) } })
  if (refused.length > 0) throw new Error(JSON.stringify(refused))
}
