import { WaybillError } from '../../shared/domain/errors.ts'

/**
 * An identity is of use only if its issuer's tokens are taken here; `iss` is compared to the letter. Throws 400
 * `ISSUER_NOT_TAKEN`, which names the issuers that are.
 */
export function demandIssuer(issuer: string, taken: readonly string[]): void {
  if (taken.includes(issuer)) return
  const bare = (url: string): string => url.replace(/\/$/, '')
  const meant = taken.find(url => bare(url) === bare(issuer))
  const advice = meant === undefined ? `those are: ${taken.join(', ')}` : `${meant} is: mind the last slash`
  const message = `tokens of ${issuer} are not taken here; ${advice}`
  throw new WaybillError('ISSUER_NOT_TAKEN', message, { status: 400, field: 'issuer' })
}
