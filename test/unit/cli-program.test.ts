import { expect } from 'chai'
import { Command } from 'commander'
import { addServiceCommands } from '../../bin/services.ts'
import type { Tools } from '../../cli/command.ts'
import { tellFailure } from '../../cli/failure.ts'
import { addPeopleCommands } from '../../cli/program.ts'
import { ApiError } from '../../shared/contract/client.ts'
import { InvalidRequest } from '../../shared/contract/invalid-request.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'

/** Runs a command line without a server; gives its exit status and what it said. */
async function run(line: string, environment: Readonly<Record<string, string>> = {}) {
  let said = ''
  const say = (text: string): void => {
    said += text
  }
  const terminal = { out: say, err: say, interactive: false }
  const tools: Tools = { terminal, environment, clock: systemClock, log: silentLogger, userId: 4_000_000 }
  const program = new Command('waybill').configureOutput({ writeOut: say, writeErr: say }).exitOverride()
  addServiceCommands(program)
  addPeopleCommands(program, tools)
  try {
    await program.parseAsync(line.split(' '), { from: 'user' })
    return { status: 0, said }
  } catch (error) {
    return { status: tellFailure(error, terminal), said }
  }
}

function everyCommand(command: Command, path: string[] = []): { path: string[]; command: Command }[] {
  return command.commands.flatMap(child => {
    const here = [...path, child.name()]
    return child.commands.length > 0 ? everyCommand(child, here) : [{ path: here, command: child }]
  })
}

describe('command line: exit status', () => {
  const misused: [string, string][] = [
    ['nonsense', 'unknown command'],
    ['rule', 'Usage: waybill rule'],
    ['rule add exp:a --to X', "required option '--copies <n>' not specified"],
    ['rule add exp:a --to X --copies two', 'a whole number is wanted'],
    ['rule add exp:a --to X --copies 2 --urgent', 'unknown option'],
    ['rule list --state mad', 'mad is none of REPLICATING'],
    ['rse set SITE-A', 'nothing to set'],
    ['rse set SITE-A --watchdog nonsense=5', 'name=seconds is wanted, the name one of connect, headers'],
    ['rse set SITE-A --watchdog connect=0', 'connect is so many seconds, more than 0 and 604800 at most, or default'],
    ['rse set SITE-A --watchdog total-per-mib=soon', 'total-per-mib is so many seconds'],
    ['rse set SITE-A --watchdog headers=700000', 'headers is so many seconds'],
    ['rse set SITE-A --watchdog headers', 'headers is so many seconds'],
    ['rse set SITE-A --capacity nothing', 'a size is wanted'],
    ['rse protocol SITE-A --url https://a.example.org --remove --no-push', '--remove goes with --url and nothing else'],
    ['rse attribute SITE-A country', 'give a value, or --remove'],
    ['transfer list --rule 1 --source A', '--rule goes with --state only'],
    ['transfer list --rule x', 'an id is a whole number'],
    ['transfer show 0', 'id: '],
    ['rule show abc', 'id: an id is a whole number, e.g. 17\n  code: INVALID, field: id'],
    ['rule show', "missing required argument 'id'"],
    ['scope allow exp bob', 'give --write, --rule, --manage, or several of them'],
    ['account map add --issuer https://a.example.org --account bob', 'give one of --sub, --client-id'],
    ['account map add --issuer https://a.example.org --sub x', 'give either --account or --pool'],
    ['account map add --issuer https://a.example.org --sub x --pool p --at 0', 'at least 1 is wanted'],
    ['rule show 17 18', 'too many arguments'],
    ['rule remove 17 abc', 'abc is no rule'],
    ['rule list --did nocolon', 'did: a DID is written scope:name'],
    ['rule add nocolon --copies 1 --to X', 'dids.0: a DID is written scope:name'],
    ['rule add exp:a --copies 0 --to X', 'copies must be at least 1'],
    ['rule add exp:a --copies 1 --to X --priority 9', 'code: INVALID, field: priority'],
    ['did show nocolon', 'a DID is written scope:name'],
    ['did list a&b', 'scope: scope has the character'],
    ['did attach exp:a nocolon', 'a DID is written scope:name'],
    ['replica list nocolon', 'a DID is written scope:name'],
    ['download nocolon', 'a DID is written scope:name'],
    ['download exp:a --parallel 0', 'at least 1 is wanted'],
    ['import --rse SITE-A --path x --did nocolon', '  path: a path is absolute'],
    ['rse show site', 'the character'],
    ['demo --port-base 99999', 'a port is wanted'],
    ['sandbox --dir /nowhere --log-level mad', 'Allowed choices are error, warn'],
    ['sandbox --dir /nowhere --play SITE-A=castor', 'one of xrootd5, xrootd6, eos, dcache, storm is wanted'],
    ['sandbox --dir /nowhere --tape SITE-A=castor', 'one of dcache, eos is wanted'],
    ['sandbox --dir /nowhere --quota SITE-A', 'a size is wanted'],
    ['demo --macaroons SITE-A=on', 'a storage is wanted, and nothing else'],
    ['demo --refuse SITE-A=COPY', 'after the "=" a verb and a status are wanted'],
    ['demo --refuse =COPY:429', 'the name of a storage is wanted first'],
    ['server --no-such-setting 1', 'unknown option'],
    ['rse distance --distance 3', 'which link?'],
    ['worker --no-such-setting 1', 'unknown option'],
    ['worker dance', 'too many arguments'],
    ['worker drain', "missing required argument 'name'"],
    ['worker drain ..', 'a worker’s name has letters'],
    ['worker drain w --timeout 3', '--timeout goes with --wait'],
    ['rse distance A B --remove --distance 3', '--remove goes without'],
  ]
  for (const [line, words] of misused) {
    it(`2 for: ${line}`, async () => {
      const { status, said } = await run(line, { WAYBILL_URL: 'https://127.0.0.1:9', BEARER_TOKEN: 'x' })
      expect(said).not.to.contain('no connection')
      expect(said).to.contain(words)
      expect(status).to.equal(2)
    })
  }

  it('2 when nobody said which server', async () => {
    expect(await run('status')).to.deep.include({ status: 2 })
    expect(await run('status', { WAYBILL_URL: 'waybill.example.org' })).to.deep.include({ status: 2 })
    expect(await run('status', { WAYBILL_URL: 'http://waybill.example.org' })).to.deep.include({ status: 2 })
  })

  it('1 without a token, and says where one is looked for', async () => {
    const { status, said } = await run('status', { WAYBILL_URL: 'https://127.0.0.1:9' })
    expect(status).to.equal(1)
    expect(said).to.contain('BEARER_TOKEN_FILE').and.to.contain('/tmp/bt_u4000000')
  })

  it('1 for a server that is not there, without the token', async () => {
    const { status, said } = await run('status', { WAYBILL_URL: 'https://127.0.0.1:9', BEARER_TOKEN: 'seen-by-nobody' })
    expect(status).to.equal(1)
    expect(said).to.contain('GET https://127.0.0.1:9/v1/status: no connection').and.not.to.contain('seen-by-nobody')
  })

  it('0 for help, with examples, of every command', async () => {
    const program = new Command('waybill')
    const terminal = { out: () => undefined, err: () => undefined, interactive: false }
    addPeopleCommands(program, { terminal, environment: {}, clock: systemClock, log: silentLogger, userId: 0 })
    const commands = everyCommand(program)
    expect(commands).to.have.length.above(30)
    for (const { path } of commands) {
      const { status, said } = await run(`${path.join(' ')} --help`)
      expect(status).to.equal(0)
      expect(said)
        .to.contain('--json')
        .and.to.contain(`Examples:\n  $ waybill ${path.join(' ')}`)
    }
  })
})

describe('command line: what went wrong', () => {
  function told(error: unknown): { status: number; said: string } {
    let said = ''
    const terminal = {
      out: () => undefined,
      err: (text: string) => {
        said += text
      },
      interactive: false,
    }
    return { status: tellFailure(error, terminal), said }
  }

  it('shows a problem with its code, field and id, and every error if there are several', () => {
    const errors = [
      { field: 'copies', message: 'at least 1' },
      { field: 'x', message: 'unknown field "x"' },
    ]
    const error = new ApiError('INVALID', 'copies: at least 1 (and 1 more)', {
      status: 400,
      field: 'copies',
      id: 'ab12',
      errors,
    })
    expect(told(error)).to.deep.equal({
      status: 1,
      said: 'waybill: copies: at least 1 (and 1 more)\n  copies: at least 1\n  x: unknown field "x"\n  code: INVALID, field: copies, id: ab12\n',
    })
  })

  it('takes what is refused before it is sent for misuse, whatever its field', () => {
    const errors = ['a', 'b'].map(field => ({ field, message: 'not so' }))
    expect(told(new InvalidRequest(errors))).to.deep.equal({
      status: 2,
      said: 'waybill: a: not so (and 1 more, see errors)\n  a: not so\n  b: not so\n  code: INVALID, field: a\n',
    })
    expect(told(new WaybillError('NAME_INVALID', 'a DID is written scope:name', { status: 400 })).status).to.equal(2)
    expect(told(new ApiError('NAME_INVALID', 'a DID is written scope:name', { status: 400 })).status).to.equal(1)
    expect(told(new WaybillError('STORAGE_ADDRESS', 'no URL', { status: 400 })).status).to.equal(1)
  })

  it('takes a configuration that is not usable for misuse', () => {
    expect(
      told(new WaybillError('CONFIG_INVALID', 'the configuration is not usable:\n  a: unknown key')).status,
    ).to.equal(2)
  })
})
