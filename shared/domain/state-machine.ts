/**
 * A table of states and events: `machine[state][event]` is the next state, or several where a decision picks one.
 * What is absent is refused. The pictures in docs/states.md are drawn from these tables.
 */
export type StateMachine<State extends string, Event extends string> = {
  readonly [state in State]: { readonly [event in Event]?: State | readonly State[] }
}

/** The states from which `event` may go to `target` (to anywhere, when no target is given): the guard of a set statement. */
export function statesAccepting<State extends string, Event extends string>(
  machine: StateMachine<State, Event>,
  event: Event,
  target?: State,
): State[] {
  return (Object.keys(machine) as State[]).filter(state => {
    const next = targetsOf(machine, state, event)
    return target === undefined ? next.length > 0 : next.includes(target)
  })
}

/** Each state that accepts `event`, with where it leads: for events that a table leads to one place only from any state. */
export function stepsOf<State extends string, Event extends string>(
  machine: StateMachine<State, Event>,
  event: Event,
): { from: State; to: State }[] {
  return (Object.keys(machine) as State[]).flatMap(from => targetsOf(machine, from, event).map(to => ({ from, to })))
}

/** Where `event` may lead from `state`; empty when it is refused there. */
export function targetsOf<State extends string, Event extends string>(
  machine: StateMachine<State, Event>,
  state: State,
  event: Event,
): readonly State[] {
  const next = machine[state][event]
  if (next === undefined) return []
  return (typeof next === 'string' ? [next] : next) as readonly State[]
}
