import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { portTrouble, type Sandbox } from '../../sandbox/main.ts'
import type { Secret } from '../../shared/domain/secret.ts'

/** Where the parts of the demo are found. */
export interface Settings {
  readonly api: string
  readonly serverMetrics: string
  readonly workerMetrics: string
  readonly serverConfig: string
  readonly workerConfig: string
}

/** Writes the configurations of server and worker: what a site writes by hand, for the sandbox's issuer. */
export async function writeSettings(sandbox: Sandbox): Promise<Settings> {
  const { directory, issuer, authority, clients } = sandbox
  const [port = 0, serverMetrics = 0, workerMetrics = 0] = await portsAfter(sandbox)
  const api = `https://localhost:${port}`
  const secrets = join(directory, 'secrets')
  await mkdir(secrets, { recursive: true, mode: 0o700 })
  const common = { ca: authority.caFile, shutdownSeconds: 10 }
  const server = {
    ...common,
    listen: { host: '127.0.0.1', port },
    tls: { certificate: authority.certificateFile, key: authority.keyFile },
    metrics: { host: '127.0.0.1', port: serverMetrics },
    database: { file: join(directory, 'waybill.sqlite') },
    audience: api,
    vault: { keyFile: join(directory, 'vault.key') },
    // A worker that was killed is missed soon.
    sessionLeaseSeconds: 8,
    retry: { soonSeconds: 1, laterSeconds: 5 },
    vos: [{ name: 'demo', issuers: [{ ...(await client('server')), exchange: 'always' }] }],
    admins: [{ issuer, subject: clients.manager.id }],
    workers: [{ issuer, client: clients.worker.id }],
  }
  const worker = {
    ...common,
    server: api,
    name: 'demo-worker',
    issuers: [await client('worker')],
    metrics: { host: '127.0.0.1', port: workerMetrics },
    concurrency: 32,
  }

  async function client(name: 'server' | 'worker'): Promise<object> {
    const clientSecretFile = join(secrets, name)
    await writeSecret(clientSecretFile, clients[name].secret)
    return { url: issuer, clientId: clients[name].id, clientSecretFile }
  }

  return {
    api,
    serverMetrics: `http://127.0.0.1:${serverMetrics}/metrics`,
    workerMetrics: `http://127.0.0.1:${workerMetrics}/metrics`,
    serverConfig: await writeYaml(join(directory, 'server.yaml'), server),
    workerConfig: await writeYaml(join(directory, 'worker.yaml'), worker),
  }
}

async function writeYaml(path: string, content: object): Promise<string> {
  await writeFile(path, stringify(content))
  return path
}

export async function writeSecret(path: string, secret: Secret): Promise<void> {
  await writeFile(path, `${secret.reveal()}\n`, { mode: 0o600 })
}

/** Three free ports behind those of the sandbox, the same ones again when the sandbox is used again. */
async function portsAfter({ issuer, storages }: Sandbox): Promise<number[]> {
  const ports: number[] = []
  const last = Math.max(...[issuer, ...storages.map(({ url }) => url)].map(url => Number(new URL(url).port)))
  for (let port = last + 1; ports.length < 3; port++) if ((await portTrouble(port)) === undefined) ports.push(port)
  return ports
}
