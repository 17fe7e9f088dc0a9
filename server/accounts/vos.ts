import { WaybillError } from '../../shared/domain/errors.ts'

export interface Vo {
  readonly id: number
  readonly name: string
  /** URLs; storage tokens come from the first. */
  readonly issuers: readonly string[]
}

/** The VOs of the configuration. An installation with one never has to name it. */
export class Vos {
  readonly #vos: readonly Vo[]

  constructor(vos: readonly Vo[]) {
    this.#vos = vos
  }

  all(): readonly Vo[] {
    return this.#vos
  }

  /** Throws 400 VO_UNKNOWN, or VO_MISSING where there are several and none was named. */
  named(name: string | undefined): Vo {
    const [only, second] = this.#vos
    if (name === undefined) {
      if (only !== undefined && second === undefined) return only
      throw new WaybillError('VO_MISSING', 'this installation has several VOs: say which', { status: 400, field: 'vo' })
    }
    const vo = this.#vos.find(candidate => candidate.name === name)
    if (vo === undefined) throw new WaybillError('VO_UNKNOWN', `there is no VO ${name}`, { status: 400, field: 'vo' })
    return vo
  }
}
