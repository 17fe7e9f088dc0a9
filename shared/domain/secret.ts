/**
 * A value that must never be seen. It prints, serialises and inspects as `[secret]`; only `reveal()` gives it out, and
 * that call is easy to find in a review. Tokens, refresh tokens, client secrets and keys travel through Waybill in it.
 */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  reveal(): string {
    return this.#value
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[secret]'
  }
}
