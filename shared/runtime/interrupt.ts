import process from 'node:process'

/** As shells tell a command that Ctrl-C has ended. */
const INTERRUPTED = 130

/** Has a command say something when Ctrl-C ends it. Answers how to take that back. */
export function onInterrupt(say: () => void): () => void {
  const end = (): void => {
    say()
    process.exit(INTERRUPTED)
  }
  process.once('SIGINT', end)
  return () => void process.off('SIGINT', end)
}
