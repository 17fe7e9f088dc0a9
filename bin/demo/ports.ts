import { type PlannedPorts, plannedPorts, portTrouble } from '../../sandbox/main.ts'
import { WaybillError } from '../../shared/domain/errors.ts'

/**
 * Looks whether the sandbox's ports can be had, before anything is made. Throws `DEMO_OTHER_PORTS` when the directory was used
 * with others (its storages are known to its server by them), `DEMO_PORT_TAKEN` with the port and whose it is.
 */
export async function demandPorts(directory: string, portBase: number): Promise<void> {
  const planned = await plannedPorts({ dir: directory, portBase })
  if (planned.before !== undefined && portBase !== 0 && planned.before !== portBase) {
    const advice = 'leave --port-base out, or take another directory'
    throw new WaybillError('DEMO_OTHER_PORTS', `${directory} was used with ports from ${planned.before} on: ${advice}`)
  }
  for (const { part, port } of planned.parts) {
    const trouble = await portTrouble(port)
    if (trouble === undefined) continue
    const what = trouble === 'EADDRINUSE' ? 'is taken by another process' : `cannot be listened on (${trouble})`
    throw new WaybillError('DEMO_PORT_TAKEN', `port ${port}, for ${part}, ${what}: ${adviceOn(planned, directory)}`)
  }
}

function adviceOn({ before }: PlannedPorts, directory: string): string {
  if (before === undefined) return 'take another --port-base, or leave it out for free ports'
  return `end what listens there (a demo that runs in ${directory} already?), or take another --dir`
}
