import { expect } from 'chai'
import { demandIssuer } from '../../server/accounts/identity.ts'
import { WaybillError } from '../../shared/domain/errors.ts'

const TAKEN = ['https://iam.example.org/', 'https://keycloak.example.org/realms/exp']

describe('identities: which issuers they can be of', () => {
  for (const issuer of TAKEN) {
    it(`takes ${issuer}`, () => expect(() => demandIssuer(issuer, TAKEN)).not.to.throw())
  }

  const refused: [string, string][] = [
    ['https://iam.example.org', 'https://iam.example.org/ is: mind the last slash'],
    ['https://keycloak.example.org/realms/exp/', 'https://keycloak.example.org/realms/exp is: mind the last slash'],
    ['https://IAM.example.org/', 'those are: https://iam.example.org/, https://keycloak.example.org/realms/exp'],
    ['https://keycloak.example.org/realms', 'those are: '],
    ['https://elsewhere.example.org/', 'those are: '],
  ]
  for (const [issuer, advice] of refused) {
    it(`refuses ${issuer}`, () => {
      expect(() => demandIssuer(issuer, TAKEN))
        .to.throw(WaybillError, `tokens of ${issuer} are not taken here; ${advice}`)
        .that.includes({ code: 'ISSUER_NOT_TAKEN', status: 400, field: 'issuer' })
    })
  }
})
