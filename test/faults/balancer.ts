import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

/** What stands before several servers: takes connections, and passes each on to the next of them that answers. */
export interface Balancer {
  readonly port: number
  stop(): Promise<void>
}

export async function startBalancer(ports: readonly number[]): Promise<Balancer> {
  const open = new Set<Socket>()
  let turn = 0
  const pass = (from: Socket, tries: number): void => {
    turn += 1
    const to = connect(ports[turn % ports.length] ?? 0, 'localhost')
    let connected = false
    to.once('connect', () => {
      connected = true
      from.pipe(to).pipe(from)
    })
    to.on('error', () => {
      if (!connected && tries > 1) pass(from, tries - 1)
      else from.destroy()
    })
    to.once('close', () => {
      if (connected) from.destroy()
    })
    from.once('close', () => to.destroy())
  }
  const server = createServer(from => {
    open.add(from)
    from.once('close', () => open.delete(from))
    from.on('error', () => from.destroy())
    pass(from, ports.length)
  })
  server.listen(0, 'localhost')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    port: address.port,
    async stop() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of open) socket.destroy()
      await closed
    },
  }
}
