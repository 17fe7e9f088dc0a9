import { expect } from 'chai'
import { decideRedirect, defaultRedirectHosts } from '../../shared/storage/redirects.ts'

describe('redirect hosts by default', () => {
  const cases: [string, string[]][] = [
    ['dcache.grid.example.org', ['.grid.example.org']],
    ['Door.Example.ORG', ['.example.org']],
    ['example.org', ['example.org', '.example.org']],
    ['gridpp.ac.uk', ['gridpp.ac.uk', '.gridpp.ac.uk']],
    ['se.gridpp.ac.uk', ['.gridpp.ac.uk']],
    ['localhost', ['localhost']],
    ['192.0.2.7', ['192.0.2.7']],
    ['127.0.0.1', ['127.0.0.1']],
    ['[2001:db8::1]', ['[2001:db8::1]']],
  ]
  for (const [host, hosts] of cases) it(`of ${host}`, () => expect(defaultRedirectHosts(host)).to.deep.equal(hosts))
})

describe('a redirect', () => {
  const FROM = 'https://door.grid.example.org:2880/vo/file'
  const follows: [string, string, (string[] | undefined)?, string?][] = [
    ['to a pool of the same domain, any port', 'https://pool7.grid.example.org:24001/x?uuid=1'],
    ['to the same host', 'https://door.grid.example.org/vo/file'],
    ['to a relative place', '/elsewhere/file'],
    ['to a registered foreign host', 'https://cache.example.net/x', ['cache.example.net']],
    ['to a registered private address', 'https://10.1.2.3:1094/x', ['10.1.2.3']],
    ['on the same loopback host', 'https://localhost:9444/x', ['localhost'], 'https://localhost:9443/x'],
    ['on the same private address', 'https://192.168.1.5:2/x', [], 'https://192.168.1.5:1/x'],
    ['from http to http', 'http://pool.grid.example.org/x', undefined, 'http://door.grid.example.org/x'],
    ['from http to https', 'https://pool.grid.example.org/x', undefined, 'http://door.grid.example.org/x'],
  ]
  for (const [name, location, allowed, from = FROM] of follows) {
    it(`${name} is followed`, () => {
      const start = new URL(from)
      const decision = decideRedirect(start, location, true, allowed ?? defaultRedirectHosts(start.hostname))
      expect(decision).to.deep.equal({ follow: true, url: new URL(location, from) })
    })
  }

  const refused: [string, string | undefined, RegExp, string[]?][] = [
    ['to a foreign host', 'https://evil.example.net/x', /evil\.example\.net/],
    ['to a host whose name only ends alike', 'https://evilgrid.example.org/x', /evilgrid/],
    ['to the parent domain itself', 'https://grid.example.org/x', /grid\.example\.org/],
    ['to a host above', 'https://www.example.org/x', /www/],
    ['from https to http', 'http://pool7.grid.example.org/x', /https to http/],
    ['from https to http on the same host', 'http://door.grid.example.org:2880/x', /https to http/],
    ['to loopback', 'https://127.0.0.1/x', /internal/],
    ['to loopback by name', 'https://localhost/x', /internal/],
    ['to loopback in another spelling', 'https://2130706433/x', /internal/],
    ['to loopback in IPv6', 'https://[::1]/x', /internal/],
    ['to mapped loopback', 'https://[::ffff:127.0.0.1]/x', /internal/],
    ['to a link-local address', 'https://169.254.169.254/latest', /internal/],
    ['to a link-local IPv6 address', 'https://[fe80::1]/x', /internal/],
    ['to a private address', 'https://10.0.0.1/x', /internal/],
    ['to a unique local address', 'https://[fd00::1]/x', /internal/],
    ['to a private address, though all names below a domain are allowed', 'https://172.16.0.1/x', /internal/, ['.1']],
    ['to a public address', 'https://192.0.2.1/x', /not among/],
    ['with a user name', 'https://user:pw@pool7.grid.example.org/x', /user name/],
    ['to another protocol', 'root://pool7.grid.example.org//x', /root:/],
    ['to a file', 'file:///etc/passwd', /file:/],
    ['to nowhere', undefined, /without Location/],
    ['to what is no URL', 'https://[', /not a URL/],
  ]
  for (const [name, location, why, allowed] of refused) {
    it(`${name} is refused`, () => {
      const decision = decideRedirect(
        new URL(FROM),
        location,
        true,
        allowed ?? defaultRedirectHosts('door.grid.example.org'),
      )
      expect(decision.follow).to.equal(false)
      expect(decision).to.have.property('why').that.matches(why)
    })
  }

  it('from https to http may be followed without a token', () => {
    const from = new URL(FROM)
    expect(decideRedirect(from, 'http://pool7.grid.example.org/x', false, ['.grid.example.org']).follow).to.equal(true)
  })

  it('is refused without quoting the query, which may hold a token', () => {
    const location = 'https://evil.example.net/x?authz=eyJhbGciOiJub25lIn0.e30.c2ln'
    expect(JSON.stringify(decideRedirect(new URL(FROM), location, true, []))).not.to.include('eyJ')
  })
})
