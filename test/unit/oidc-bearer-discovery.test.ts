import { expect } from 'chai'
import { discoverBearer } from '../../shared/oidc/bearer-discovery.ts'
import type { Environment } from '../../shared/runtime/environment.ts'
import { rejection } from './oidc-local-issuer.ts'

type Files = Record<string, string>

async function discover(environment: Environment, files: Files = {}): Promise<string | undefined> {
  const readFile = async (path: string): Promise<string | undefined> => {
    if (files[path] === 'EACCES') throw new Error('EACCES')
    return files[path]
  }
  const found = await discoverBearer({ environment, userId: 1221, readFile })
  return found && `${found.token.reveal()} from ${found.source}`
}

describe('WLCG bearer token discovery', () => {
  const everywhere: Environment = { BEARER_TOKEN: 'a', BEARER_TOKEN_FILE: '/f', XDG_RUNTIME_DIR: '/run/user/1221' }
  const files: Files = { '/f': 'b', '/run/user/1221/bt_u1221': 'c', '/tmp/bt_u1221': 'd' }

  const found: [what: string, environment: Environment, files: Files, result: string | undefined][] = [
    ['the environment first', everywhere, files, 'a from BEARER_TOKEN'],
    ['then the file it names', { ...everywhere, BEARER_TOKEN: undefined }, files, 'b from /f'],
    ['then the runtime directory', { XDG_RUNTIME_DIR: '/run/user/1221' }, files, 'c from /run/user/1221/bt_u1221'],
    ['then /tmp', {}, files, 'd from /tmp/bt_u1221'],
    ['nothing', {}, {}, undefined],
    ['white space stripped', { BEARER_TOKEN: ' \t\f\v\r\na.b-c_d~e+f/g==\n' }, {}, 'a.b-c_d~e+f/g== from BEARER_TOKEN'],
    ['the next place after an empty one', { ...everywhere, BEARER_TOKEN: ' \n' }, files, 'b from /f'],
    [
      'the next place after an empty file',
      { BEARER_TOKEN_FILE: '/f' },
      { ...files, '/f': '\n' },
      'd from /tmp/bt_u1221',
    ],
    ['the next place after a missing file', { BEARER_TOKEN_FILE: '/g' }, files, 'd from /tmp/bt_u1221'],
    [
      'variables that are set to nothing ignored',
      { BEARER_TOKEN_FILE: '', XDG_RUNTIME_DIR: '' },
      files,
      'd from /tmp/bt_u1221',
    ],
  ]
  for (const [what, environment, present, result] of found) {
    it(what, async () => expect(await discover(environment, present)).to.equal(result))
  }

  const refused: [what: string, environment: Environment, files: Files, code: string][] = [
    ['a token with a space', { BEARER_TOKEN: 'a b' }, files, 'TOKEN_MALFORMED'],
    ['a token in quotes', { BEARER_TOKEN: '"a"' }, files, 'TOKEN_MALFORMED'],
    ['a byte order mark', { BEARER_TOKEN: '\ufeffa' }, files, 'TOKEN_MALFORMED'],
    ['a file of two lines', { BEARER_TOKEN_FILE: '/f' }, { ...files, '/f': 'a\nb' }, 'TOKEN_MALFORMED'],
    ['a file one may not read', { BEARER_TOKEN_FILE: '/f' }, { ...files, '/f': 'EACCES' }, 'TOKEN_UNREADABLE'],
  ]
  for (const [what, environment, present, code] of refused) {
    it(`stops at ${what}: ${code}`, async () => {
      expect((await rejection(discover(environment, present))).code).to.equal(code)
    })
  }
})
