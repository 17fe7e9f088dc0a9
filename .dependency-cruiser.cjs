// Who may import whom. The floors of the house: see docs/architecture.md.
const only = (name, from, allowed) => ({
  name,
  severity: 'error',
  from: { path: from },
  to: { path: '^(bin|server|worker|shared|cli|sandbox|migrations|test|bench)/', pathNot: allowed },
})

module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    only('domain-imports-nothing', '^shared/domain/', '^shared/domain/'),
    only('runtime-imports-domain', '^shared/runtime/', '^shared/(runtime|domain)/'),
    only('http-imports-runtime', '^shared/http/', '^shared/(http|runtime|domain)/'),
    only('contract', '^shared/contract/', '^shared/(contract|http|runtime|domain)/'),
    only('oidc', '^shared/oidc/', '^shared/(oidc|http|runtime|domain)/'),
    only('storage', '^shared/storage/', '^shared/(storage|http|runtime|domain)/'),
    only('server-imports-shared', '^server/', '^(server|shared|migrations)/'),
    only('worker-imports-shared', '^worker/', '^(worker|shared)/'),
    only('cli-imports-contract-and-storage', '^cli/', '^(cli|shared)/'),
    only('sandbox-imports-shared', '^sandbox/', '^(sandbox|shared)/'),
    only('migrations-import-nothing', '^migrations/', '^migrations/'),
    {
      name: 'sqlite-and-knex-stay-in-the-server',
      severity: 'error',
      from: { pathNot: '^(server|migrations|test|bench)/' },
      to: { path: 'node_modules/(knex|sqlite3)/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      extensions: ['.ts', '.js'],
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
    },
  },
}
