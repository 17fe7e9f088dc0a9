import { readFile } from 'node:fs/promises'
import { createServer, type TLSSocket } from 'node:tls'
import { systemClock } from '../shared/runtime/clock.ts'
import { answerParent } from './processes.ts'

export interface StorageState {
  readonly port: number
  readonly open: number
}

export interface InstantStorage {
  readonly certificateFile: string
  readonly keyFile: string
  /** What every file there is. */
  readonly bytes: number
  readonly adler32: string
  /** `at-once`: a COPY is done when it is asked for. `never`: it says so every 5 s that it goes on. */
  readonly copies: 'at-once' | 'never'
}

/** How often XRootD, StoRM and dCache send markers (facts/http-tpc.md section 2). */
const MARKER_MS = 5_000
/** Copies send their markers 5 s after each other's own beginning, in steps of this. */
const STEP_MS = 50

/**
 * A storage of one process that has every file, and copies without doing anything: TLS and as little HTTP as COPY and HEAD
 * take, since what it costs is taken from what is measured on the same machine. Answers its port, and how many copies are open.
 */
answerParent(async (message: InstantStorage | 'open-copies') => {
  if (message === 'open-copies') return { port: 0, open }
  return { port: await serve(message), open }
})

let open = 0

async function serve(storage: InstantStorage): Promise<number> {
  const [cert, key] = await Promise.all([readFile(storage.certificateFile), readFile(storage.keyFile)])
  const here = `HTTP/1.1 200 OK\r\nContent-Length: ${storage.bytes}\r\nDigest: adler32=${storage.adler32}\r\n\r\n`
  const begun = 'HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n'
  const copied = `${begun}${chunk('success: Created\n')}${chunk('')}`
  const wheel = storage.copies === 'never' ? startMarkers() : undefined
  const server = createServer({ cert, key, noDelay: true }, socket => {
    let received = ''
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => {
      received += text
      if (!received.endsWith('\r\n\r\n')) return
      const isCopy = received.startsWith('COPY ')
      received = ''
      socket.write(isCopy ? (wheel === undefined ? copied : begun) : here)
      if (isCopy) wheel?.add(socket)
    })
    // A client that goes away is none of our business.
    socket.on('error', () => undefined)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', 8_192, resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`
}

/** One timer for all copies: a slot for each step of the 5 s. */
function startMarkers(): { add(socket: TLSSocket): void } {
  const slots = Array.from({ length: MARKER_MS / STEP_MS }, () => new Set<TLSSocket>())
  let now = 0
  let bytes = 0
  const turn = async (): Promise<void> => {
    for (;;) {
      await systemClock.sleep(STEP_MS)
      now = (now + 1) % slots.length
      bytes += 1_000_000
      const marker = chunk(
        `Perf Marker\nTimestamp: ${Math.round(systemClock.now() / 1000)}\nStripe Index: 0\nStripe Bytes Transferred: ${bytes}\nTotal Stripe Count: 1\nRemoteConnections: tcp:127.0.0.1:19443\nEnd\n`,
      )
      for (const socket of slots[now] ?? []) socket.write(marker)
    }
  }
  void turn()
  return {
    add(socket) {
      const slot = slots[now]
      slot?.add(socket)
      open += 1
      socket.once('close', () => {
        slot?.delete(socket)
        open -= 1
      })
    },
  }
}
