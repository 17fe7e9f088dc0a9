/**
 * The version of the rows that workers call (`routes/worker.ts`). A server knows this version and the one before it, so that
 * servers are updated first and workers after them; see docs/decisions/0009. It is raised with the first change of those rows
 * after a release.
 */
export const WORKER_CONTRACT = 1

/** The newest version that a release of Waybill has, 0 for none: its snapshot in docs/contract changes no more. */
export const RELEASED_WORKER_CONTRACT = 0

export const CONTRACT_CODES = ['CONTRACT_TOO_OLD', 'CONTRACT_TOO_NEW'] as const
export type ContractCode = (typeof CONTRACT_CODES)[number]

/** Why a server of the version `served` has no session for a worker that speaks `spoken`; undefined when it has. */
export function contractRefusal(
  spoken: number,
  served = WORKER_CONTRACT,
): { code: ContractCode; message: string } | undefined {
  const oldest = Math.max(1, served - 1)
  const known = oldest === served ? `version ${served}` : `versions ${oldest} and ${served}`
  const which = `the worker speaks version ${spoken} of the contract and this server ${known}`
  if (spoken > served) return { code: 'CONTRACT_TOO_NEW', message: `${which}: update the server, and workers after it` }
  if (spoken < oldest) return { code: 'CONTRACT_TOO_OLD', message: `${which}: update the worker` }
  return undefined
}
