import { WaybillError } from '../../shared/domain/errors.ts'

/** Every storage takes it (facts/tokens.md section 1, statement 6): a token that is good anywhere is never asked for. */
const ANY = 'https://wlcg.cern.ch/jwt/v1/any'

/**
 * A token may be good for the storage's own host only: `https://host[:port]`, or the bare host that Rucio's storages know;
 * and it is sent there only, so every protocol must be of that host. Throws 400 AUDIENCE_FOREIGN.
 */
export function checkAudience(audience: string, protocolUrls: readonly string[], field = 'audience'): void {
  const refuse = (why: string): never => {
    throw new WaybillError('AUDIENCE_FOREIGN', `the audience ${audience} ${why}`, { status: 400, field })
  }
  if (audience === ANY) refuse('would make tokens that every storage takes')
  const host = URL.canParse(audience) ? new URL(audience).hostname : audience.split(':')[0]
  const others = protocolUrls.map(url => new URL(url).hostname).filter(own => own !== host)
  if (others.length > 0) refuse(`is not of the storage's own host (${others.join(', ')})`)
}
