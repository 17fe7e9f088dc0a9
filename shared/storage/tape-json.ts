import type { TransferScope } from '../domain/error-catalogue.ts'
import type { HttpResponse } from '../http/client.ts'
import { type TapeVerb, transferFailure } from './classify.ts'
import { orStorageError } from './files.ts'
import { StorageError } from './types.ts'

/** The JSON of an answer of at most so many bytes. Throws `StorageError`. */
export async function readJson(
  attempted: { readonly verb: TapeVerb; readonly scope: TransferScope },
  response: HttpResponse,
  limitBytes: number,
): Promise<unknown> {
  const text = await orStorageError(attempted, () => response.text(limitBytes + 1))
  if (Buffer.byteLength(text) > limitBytes) throw notUnderstood(attempted, `with more than ${limitBytes} bytes`)
  try {
    return JSON.parse(text)
  } catch {
    throw notUnderstood(attempted, 'with something else than JSON')
  }
}

/** An answer that is none: `how` ends the sentence. */
export function notUnderstood(
  { verb, scope }: { readonly verb: TapeVerb; readonly scope: TransferScope },
  how: string,
): StorageError {
  return new StorageError(transferFailure('PROTOCOL_VIOLATION', scope, 'PREPARATION', `${verb} answered ${how}`))
}
