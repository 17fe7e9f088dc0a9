/** Who calls, once the token was verified and mapped. Made by `authenticate`, checked against the route's role by the app. */
export interface Caller {
  readonly issuer: string
  readonly subject: string
  readonly admin: boolean
  /** A configured worker pool; absent lists mean all. */
  readonly worker?: WorkerRights
  /** The account that the identity is mapped to. */
  readonly account?: CallerAccount
}

/** Who did it, as people read it: the account, or who it is without one. */
export function actorOf({ account, subject, issuer }: Pick<Caller, 'account' | 'subject' | 'issuer'>): string {
  return account?.name ?? `${subject} of ${issuer}`
}

export interface WorkerRights {
  /** The pool's client id. */
  readonly client: string
  /** Keys. */
  readonly voIds?: readonly number[]
  /** Names: storages come and go. */
  readonly rses?: readonly string[]
  readonly activities?: readonly string[]
  readonly links?: readonly LinkName[]
}

/** Names of storages. */
export interface LinkName {
  readonly source: string
  readonly destination: string
}

export interface CallerAccount {
  readonly id: number
  readonly name: string
  readonly voId: number
  readonly vo: string
}
