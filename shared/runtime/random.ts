import { randomBytes, randomInt, randomUUID } from 'node:crypto'

/** The only way to randomness. Tests inject a seeded one. */
export interface Random {
  uuid(): string
  bytes(count: number): Buffer
  /** A number in [0, 1). */
  fraction(): number
}

export const systemRandom: Random = {
  uuid: () => randomUUID(),
  bytes: count => randomBytes(count),
  fraction: () => randomInt(0, 2 ** 47) / 2 ** 47,
}
