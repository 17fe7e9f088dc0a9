import { stderr, stdout } from 'node:process'

/** Where commands talk to people: results on `out`, everything else on `err`. */
export interface Terminal {
  out(text: string): void
  err(text: string): void
  /** True when a person watches, so that a progress line may redraw itself. */
  readonly interactive: boolean
}

export const systemTerminal: Terminal = {
  out: text => void stdout.write(text),
  err: text => void stderr.write(text),
  interactive: Boolean(stdout.isTTY),
}

// Whoever reads may stop before all is written (`| head`): that is no fault of the command.
for (const stream of [stdout, stderr]) stream.on('error', () => undefined)

/** Resolves when all was taken by whoever reads, or nobody does any more: what waits in a pipe is lost when the process exits. */
export async function flushed(): Promise<void> {
  const taken = [stdout, stderr].map(
    stream =>
      new Promise<void>(resolve => {
        stream.once('error', () => resolve())
        stream.write('', () => resolve())
      }),
  )
  await Promise.all(taken)
}
