import { expect } from 'chai'
import { readServerConfig, serverConfigSchema } from '../../server/config.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { type ConfigSources, flagsOf } from '../../shared/runtime/config.ts'
import { readWorkerConfig } from '../../worker/config.ts'

const FILE = `
listen: { host: 0.0.0.0, port: 8443 }
tls: { certificate: /etc/waybill/host.pem, key: /etc/waybill/host.key }
audience: https://waybill.example.org
vault: { keyFile: /var/lib/waybill/vault.key }
vos:
  - name: exp
    issuers:
      - { url: https://iam.example.org/, clientId: waybill, clientSecretFile: /etc/waybill/secret }
admins: [{ issuer: https://iam.example.org/, subject: alice }]
workers: [{ issuer: https://iam.example.org/, client: pool, rses: [SITE-A], activities: [User Subscriptions], links: [{ source: SITE-A, destination: SITE-B }] }]
`
const SECRETS: Readonly<Record<string, string>> = { '/etc/waybill/secret': 'hush-hush\n' }
const readSecretFile = (path: string): string => {
  const text = SECRETS[path]
  if (text === undefined) throw new Error('ENOENT')
  return text
}

const server = (sources: Partial<ConfigSources> & { text?: string } = {}) =>
  readServerConfig(
    {
      flags: sources.flags ?? {},
      environment: sources.environment ?? {},
      file: { name: 'server.yaml', text: sources.text ?? FILE },
    },
    readSecretFile,
  )

function refusal(read: () => unknown): string[] {
  try {
    read()
  } catch (error) {
    if (error instanceof WaybillError && error.code === 'CONFIG_INVALID') return error.message.split('\n  ').slice(1)
    throw error
  }
  throw new Error('it was accepted')
}

describe('configuration', () => {
  it('reads the file, fills in defaults and puts the secret where its file was named', () => {
    const config = server()
    expect(config.listen).to.deep.equal({ host: '0.0.0.0', port: 8443 })
    expect(config.sessionLeaseSeconds).to.equal(20)
    expect(config.retry).to.deep.equal({ maxAttempts: 5, soonSeconds: 5, laterSeconds: 60, maxDelaySeconds: 3600 })
    expect(config.apiIssuers).to.deep.equal(['https://iam.example.org/'])
    const [issuer] = config.vos[0]?.issuers ?? []
    expect(issuer?.clientSecret.reveal()).to.equal('hush-hush')
    expect(JSON.stringify(config)).not.to.contain('hush')
  })

  it('takes a flag before the environment before the file before the default', () => {
    const environment = { WAYBILL_LISTEN_PORT: '9001', WAYBILL_LOG_LEVEL: 'debug' }
    expect(server({ environment }).listen.port).to.equal(9001)
    expect(server({ environment, flags: { 'listen-port': '9002' } }).listen.port).to.equal(9002)
    expect(server({ environment }).logLevel).to.equal('debug')
    expect(server().logLevel).to.equal('info')
  })

  it('reaches into lists from the environment, for secrets above all', () => {
    const text = FILE.replace(', clientSecretFile: /etc/waybill/secret', '')
    const environment = { WAYBILL_VOS_0_ISSUERS_0_CLIENT_SECRET: 'from-the-environment' }
    expect(server({ text, environment }).vos[0]?.issuers[0]?.clientSecret.reveal()).to.equal('from-the-environment')
  })

  it('reads a list of plain values with commas or spaces', () => {
    const environment = { WAYBILL_API_ISSUERS: 'https://a.example.org, https://b.example.org' }
    expect(server({ environment }).apiIssuers).to.deep.equal(['https://a.example.org', 'https://b.example.org'])
  })

  it('knows the variables of the commands of people', () => {
    expect(server({ environment: { WAYBILL_URL: 'https://x', WAYBILL_CONFIG: 'f', HOME: '/' } }).listen.port).to.equal(
      8443,
    )
  })

  it('lists all that is wrong, from all sources', () => {
    const wrong = refusal(() =>
      server({
        text: `${FILE}\ncolour: red\nretry: { maxAttempts: 0, often: yes }\n`,
        environment: { WAYBILL_LISTEN_PORT: 'ninety', WAYBILL_NONSENSE: '1', WAYBILL_VOS_NAME: 'x' },
        flags: { 'listen-hots': 'x' },
      }),
    ).join('\n')
    for (const part of ['colour', 'retry.maxAttempts', 'retry.often', 'WAYBILL_LISTEN_PORT', 'WAYBILL_NONSENSE'])
      expect(wrong).to.contain(part)
    expect(wrong).to.contain('WAYBILL_VOS_NAME').and.to.contain('--listen-hots')
  })

  const bad: [string, string, string][] = [
    ['no YAML', 'a: [', 'server.yaml: not YAML'],
    ['no mapping', '- a', 'not a YAML mapping'],
    [
      'a secret in the file',
      FILE.replace('clientSecretFile: /etc/waybill/secret', 'clientSecret: oops'),
      'may not stand in server.yaml',
    ],
    ['no secret at all', FILE.replace(', clientSecretFile: /etc/waybill/secret', ''), 'the client secret is missing'],
    [
      'a secret file that is not there',
      FILE.replace('waybill/secret', 'waybill/other'),
      '/etc/waybill/other cannot be read',
    ],
    [
      'a database password in its URL',
      `${FILE}\ndatabase: { url: "postgres://waybill:secret@localhost/waybill" }`,
      'the password must not stand in it',
    ],
    [
      'a database password in its URL’s query',
      `${FILE}\ndatabase: { url: "postgres://waybill@localhost/waybill?password=secret" }`,
      'the password must not stand in it',
    ],
    ['an issuer without TLS', FILE.replace('url: https', 'url: http'), 'an https URL is wanted'],
    ['a worker for an unknown VO', FILE.replace('client: pool', 'client: pool, vos: [cms]'), 'not among the VOs: cms'],
    ['an activity that cannot be', FILE.replace('User Subscriptions', 'User/x'), 'workers.0.activities.0'],
    ['a link without an end', FILE.replace('source: SITE-A, ', ''), 'workers.0.links.0.source'],
    ['an RSE name that cannot be', FILE.replace('rses: [SITE-A]', 'rses: [site/a]'), 'workers.0.rses.0'],
    ['nothing', '', 'audience'],
  ]
  for (const [what, text, said] of bad) {
    it(`refuses ${what}`, () => {
      const wrong = refusal(() => server({ text })).join('\n')
      expect(wrong).to.contain(said)
      expect(wrong).not.to.contain('oops')
    })
  }

  it('names every setting that is missing, with its variable where it has one', () => {
    expect(refusal(() => server({ text: '' }))).to.have.members([
      'tls.certificate (WAYBILL_TLS_CERTIFICATE): it is missing',
      'tls.key (WAYBILL_TLS_KEY): it is missing',
      'audience (WAYBILL_AUDIENCE): it is missing',
      'vault.keyFile (WAYBILL_VAULT_KEY_FILE): it is missing',
      'vos: it is missing',
    ])
  })

  it('offers flags for plain values outside lists, and none for secrets', () => {
    const flags = flagsOf(serverConfigSchema(readSecretFile)).map(({ flag }) => flag)
    expect(flags).to.include.members(['listen-port', 'tls-certificate', 'vault-key-file', 'log-level', 'api-issuers'])
    expect(flags.join()).not.to.match(/secret|vos|workers|admins/)
  })

  it('gives a worker its name, its audience and its API issuer', () => {
    const text = `
server: https://waybill.example.org
issuers: [{ url: https://iam.example.org/, clientId: pool, clientSecretFile: /etc/waybill/secret }]
`
    const sources = { flags: { concurrency: '8' }, environment: {}, file: { name: 'worker.yaml', text } }
    const config = readWorkerConfig(sources, readSecretFile, 'node-1')
    expect(config).to.include({ name: 'node-1', audience: 'https://waybill.example.org', concurrency: 8 })
    expect(config.apiIssuer).to.equal('https://iam.example.org/')
    const elsewhere = { ...sources, flags: { 'api-issuer': 'https://other.example.org/' } }
    expect(refusal(() => readWorkerConfig(elsewhere, readSecretFile, 'node-1')).join()).to.contain(
      'not among the issuers',
    )
  })
})
